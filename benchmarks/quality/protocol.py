"""What is compared with what: subjects, prompts, strengths, arms and measures, fixed before the first test picture was drawn.

Nothing here was chosen by a look at test pairs. `docs/quality.md` says the same in words, and what came out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from embedded_base.captions import write_caption

FLAT = "fluent-emoji-flat"
"""The set that the base draws by its plain captions."""

STYLES = ("fluent-emoji", "fluent-emoji-high-contrast")
"""The sets that the embedded base has never drawn: soft gradients, and black line art."""

TESTS: dict[str, tuple[str, ...]] = {
    "animals": ("dog-face", "elephant", "parrot", "turtle"),
    "food": ("banana", "ice-cream", "watermelon", "carrot"),
    "travel": ("airplane", "tractor", "house", "snowman"),
    "activities": ("basketball", "balloon", "jack-o-lantern", "video-game"),
    "objects": ("bell", "key", "umbrella", "lipstick"),
    "plants": ("cactus", "tulip", "maple-leaf", "palm-tree"),
}
"""Test contents by group. No subject is among them, nor any content of the demo or of the validation."""

SUBJECTS: dict[str, str] = {
    "panda": "animals",
    "cupcake": "food",
    "locomotive": "travel",
    "trophy": "activities",
    "camera": "objects",
    "sunflower": "plants",
}
"""Training subjects of the default run, one a group."""

MORE_SUBJECTS: dict[str, str] = {"honeybee": "animals", "pancakes": "food", "helicopter": "travel", "crown": "objects"}
"""What `--full` adds."""

UNKNOWN_SUBJECTS: dict[str, str] = {
    "beaver": "animals",
    "sandwich": "food",
    "delivery-truck": "travel",
    "ribbon": "activities",
    "printer": "objects",
    "hibiscus": "plants",
}
"""Training subjects of `--unknown`: the embedded base has never drawn them, as a base has never drawn a studio's own."""

VALIDATION_SUBJECTS: dict[str, str] = {"pig-face": "animals", "strawberry": "food", "bus": "travel", "telephone": "objects"}
UNKNOWN_VALIDATION_SUBJECTS: dict[str, str] = {"otter": "animals", "burrito": "food", "police-car": "travel", "telescope": "objects"}
VALIDATION_TESTS = ("cat-face", "pizza", "guitar")
"""The pairs on which learning rates are chosen: each subject in both styles; those of unknown subjects on subjects that are unknown too."""

RELATIVE_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Multiples of the guidance scale for style guidance; the same numbers are the weights of a plain LoRA."""

NOMINAL = 1.0
"""The setting at which leakage and diversity are told: strength = guidance scale, or a plain LoRA of weight 1."""

TRUTHS = ("truth_perceptual_similarity", "truth_similarity", "truth_ssim")
"""Measures of likeness to the ground truth; the first, by an encoder that nobody here trained, is the one that decides."""

STRUCTURE = "structure_ssim"
"""The axis against which style is bought: edges of the unstyled picture of the same prompt and seed."""

RATES = (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2)
"""Learning rates among which each way of training chooses one for each style, on the validation pairs, by the mean area of all measures.

One measure alone misleads: by perceptual features smaller rates came out better and better, since on line art the words alone do best.
"""

Training = Literal["pairlora", "free", "style-only", "none"]
"""`pairlora`: frozen orthonormal A. `free`: both LoRAs with a trainable random A. `style-only`: one such LoRA on the style picture."""


@dataclass(frozen=True)
class Arm:
    """One way to get from a pair to styled pictures.

    `settings` are sections of the run's configuration over the preset; `by_weight`: the adapter is a plain LoRA at `WEIGHTS`
    instead of style guidance; `transfer` names an arm that changes the unstyled picture without any training.
    """

    name: str
    meaning: str
    training: Training = "pairlora"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    by_weight: bool = False
    transfer: str | None = None
    identifier: str = ""

    @property
    def is_trained(self) -> bool:
        """Whether anything is learnt from the pair."""
        return self.training != "none"


PUBLISHED: dict[str, Any] = {"timestep_range": None, "layers": None}
"""The published recipe where presets may have another: all timesteps, all attention projections."""

ARMS: tuple[Arm, ...] = (
    Arm("ours", "content and style LoRA with orthogonal inputs, style guidance"),
    Arm("style-only", "one LoRA on the style picture, style guidance", training="style-only"),
    Arm("style-only-weight", "one LoRA on the style picture as a plain LoRA of a weight", training="style-only", by_weight=True),
    Arm("not-orthogonal", "both LoRAs with trainable random A, style guidance", training="free"),
    Arm("ours-weight", "ours as a plain LoRA of a weight", by_weight=True),
    Arm("words", "no adapter, guidance by the words of the style alone", training="none"),
    Arm("colour-transfer", "mean and spread of the style picture's colours", training="none", transfer="colour"),
    Arm("histogram-transfer", "the style picture's histograms of red, green and blue", training="none", transfer="histogram"),
    Arm("late-timesteps", "ours, trained at the timesteps that are guided", settings={"train": {"timestep_range": (0, 800)}}),
    Arm("up-blocks", "ours, adapters on the way up alone", settings={"train": {"layers": "^up_blocks"}}),
    Arm("onset-off", "ours, guided from the first step on", settings={"sample": {"onset": 1000}}),
    Arm("alternating", "ours, content update before the style pass", settings={"train": {"update": "alternating"}}),
)
"""The arms of the default run."""

UNKNOWN_ARMS = "ours style-only not-orthogonal words ours-weight style-only-weight late-timesteps".split()
"""What is compared on unknown subjects: the paper's claims, and one further recipe."""

_TRAINED = [arm.name for arm in ARMS if arm.is_trained]
CHOSEN_RATES: dict[str, dict[str, float]] = {
    "gradient": dict.fromkeys(_TRAINED, 6e-3) | {"alternating": 3e-3, "up-blocks": 3e-3},
    "high-contrast": dict.fromkeys(_TRAINED, 7.5e-4),
}
"""Learning rate by style and arm on the embedded base: the best of `RATES` by `--search` on the validation pairs (docs/quality.md)."""

_OURS, _STYLE_ONLY = ("ours", "ours-weight"), ("style-only", "style-only-weight")
UNKNOWN_RATES: dict[str, dict[str, float]] = {
    "gradient": dict.fromkeys(_OURS, 7.5e-4) | dict.fromkeys(_STYLE_ONLY, 1.5e-3) | {"not-orthogonal": 7.5e-4, "late-timesteps": 6e-3},
    "high-contrast": dict.fromkeys(_OURS, 3e-3) | dict.fromkeys(_STYLE_ONLY, 7.5e-4) | {"not-orthogonal": 7.5e-4, "late-timesteps": 7.5e-4},
}
"""The same for subjects that the base has never drawn, by `--search --unknown` up to 6e-3."""


def group_arms(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    """Arms by what they train, so that no two groups train the same adapters."""
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        key = f"{arm.training} {arm.identifier} {dict(arm.settings.get('train', {}))}"
        groups.setdefault(key, []).append(arm)
    return groups


def choose_tests(group: str, each: int = 4) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Test contents for a subject of a group: `each` of the same group, and one of each of as many groups that follow."""
    names = list(TESTS)
    at = names.index(group)
    others = tuple(TESTS[names[(at + step) % len(names)]][step - 1] for step in range(1, each + 1))
    return TESTS[group][:each], others


@dataclass(frozen=True)
class Extent:
    """How much is drawn: training subjects with their groups, prompts of the same group and as many of others, and seeds of each.

    `name` begins the names of the manifests, so that no two extents share runs. `rates` were chosen on the pairs of `validation`.
    `arms` are the names of those that are compared.
    """

    name: str
    subjects: Mapping[str, str]
    prompts: int
    seeds: Sequence[int]
    validation: Mapping[str, str]
    rates: Mapping[str, Mapping[str, float]]
    arms: Sequence[str] = tuple(arm.name for arm in ARMS)

    def choose_rate(self, base: str, arm: Arm, style: str) -> float | None:
        """Learning rate of an arm for the pairs of a style; null, the preset's own, for a base on which nothing was searched.

        Raises ValueError for an arm that has none on the embedded base: at any other it would not be on equal terms.
        """
        if base != "embedded" or not arm.is_trained:
            return None
        if arm.name not in self.rates[style]:
            raise ValueError(f"{arm.name} has no learning rate for {self.name} subjects; find one by --search and put it into the protocol")
        return self.rates[style][arm.name]


DEFAULT = Extent("test", SUBJECTS, 4, (0, 1), VALIDATION_SUBJECTS, CHOSEN_RATES)
FULL = Extent("full", SUBJECTS | MORE_SUBJECTS, 4, (0, 1, 2), VALIDATION_SUBJECTS, CHOSEN_RATES)
UNKNOWN = Extent("unknown", UNKNOWN_SUBJECTS, 4, (0, 1), UNKNOWN_VALIDATION_SUBJECTS, UNKNOWN_RATES, UNKNOWN_ARMS)


def name_groups() -> dict[str, str]:
    """The group of each test prompt, by prompt; validation prompts have none."""
    return {write_caption(slug, FLAT): group for group, slugs in TESTS.items() for slug in slugs}
