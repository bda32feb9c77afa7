"""Means over the pictures of a pair, with intervals, and the strength that follows from them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from pairlora.config import EvaluateConfig
from pairlora.measures import DIVERSITY, GAINS, Cell, Recommendation, bootstrap_mean, relate_gain, weigh_recommendation
from pairlora.report.collection import PairContents, ShownImage

ALL_PROMPTS = ""


Key = tuple[str, float | None, float | None, str]
"""Prompt, strength, LoRA weight and metric; of strength and weight one is null."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The mean of a metric over `n` pictures, one for each (prompt, seed), with its 95 % bootstrap interval; null for one picture.

    `strength` is null for pictures drawn with the adapter as a plain LoRA, `lora_weight` for all others. `diversity` is
    known of a prompt alone, so its `n` counts prompts.
    """

    pair_id: str
    prompt: str
    strength: float | None
    lora_weight: float | None
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class PairSummary:
    """All means of a pair, the strength and LoRA weight that they recommend, null where none is fit, and the spill of its adapter."""

    summaries: tuple[Summary, ...]
    strength: Recommendation
    weight: Recommendation
    spill: float | None = None

    @property
    def recommended_strength(self) -> float | None:
        return self.strength.value

    @cached_property
    def _overall(self) -> dict[tuple[str, float | None, float | None], Summary]:
        return {(one.metric, one.strength, one.lora_weight): one for one in self.summaries if one.prompt == ALL_PROMPTS}

    def find(self, metric: str, strength: float | None) -> Summary | None:
        """The mean of a metric over all prompts at a strength."""
        return None if strength is None else self._overall.get((metric, strength, None))

    def find_weight(self, metric: str, weight: float | None) -> Summary | None:
        """The mean of a metric over all prompts at the weight of a plain LoRA."""
        return None if weight is None else self._overall.get((metric, None, weight))

    def by_strength(self, metric: str) -> dict[float, float]:
        """The means of a metric over all prompts, by strength."""
        return {strength: one.value for (name, strength, _), one in self._overall.items() if name == metric and strength is not None}


def summarize_pair(pair: PairContents, evaluate: EvaluateConfig) -> PairSummary:
    """Means per strength and metric, for all prompts together and for each one; the strength by the configuration's rule."""
    groups: dict[Key, list[float]] = defaultdict(list)
    for image, metric, value in _iterate_values(pair.images):
        for prompt in (ALL_PROMPTS, image.record.prompt):
            groups[prompt, image.strength, image.lora_weight, metric].append(value)
    for (prompt, strength, weight), ratio in _compare_spreads(groups):
        for name in (ALL_PROMPTS, prompt):
            groups[name, strength, weight, DIVERSITY.name].append(ratio)
    summaries = tuple(_summarize(pair.pair_id, *key, values, evaluate) for key, values in groups.items())
    guided = [(image, image.strength) for image in pair.images if image.strength is not None]
    plain = [(image, image.lora_weight) for image in pair.images if image.lora_weight is not None]
    return PairSummary(summaries, recommend(guided, evaluate), recommend(plain, evaluate), pair.outcome.spill)


def recommend(drawn: Iterable[tuple[ShownImage, float]], evaluate: EvaluateConfig) -> Recommendation:
    """The strength or LoRA weight of the rule, from pictures with the one that each was drawn at. Free of ground truth."""
    values: dict[str, dict[float, dict[Cell, float]]] = {"progress": {}, "structure_ssim": {}}
    for image, setting in drawn:
        for metric, by_setting in values.items():
            if (value := image.values.get(metric)) is not None:
                by_setting.setdefault(setting, {})[image.record.prompt, image.record.seed] = value
    return weigh_recommendation(
        values["progress"],
        values["structure_ssim"],
        least_progress=evaluate.least_progress,
        structure_floor=evaluate.structure_floor,
        least_pace=evaluate.least_pace,
        samples=evaluate.bootstrap_samples,
        seed=evaluate.bootstrap_seed,
    )


def _iterate_values(images: Iterable[ShownImage]) -> Iterator[tuple[ShownImage, str, float]]:
    """Each value that is known of a picture: its own scores, and its gains over the unstyled picture of its prompt and seed."""
    images = list(images)
    unstyled = {(image.record.prompt, image.record.seed): image.values for image in images if image.record.is_unstyled}
    for image in images:
        beside = {} if image.record.is_unstyled else unstyled.get((image.record.prompt, image.record.seed), {})
        known = {**image.values, **compute_gains(image.values, beside)}
        yield from ((image, metric, value) for metric, value in known.items() if value is not None)


def _compare_spreads(groups: Mapping[Key, Sequence[float]]) -> list[tuple[tuple[str, float | None, float | None], float]]:
    """Mean spread over that of the unstyled pictures, by prompt, strength and LoRA weight."""
    means = {key[:3]: fmean(values) for key, values in groups.items() if key[3] == "spread" and key[0]}
    return [
        ((prompt, strength, weight), value / unstyled)
        for (prompt, strength, weight), value in means.items()
        if strength != 0 and (unstyled := means.get((prompt, 0.0, None), 0.0)) > 1e-9
    ]


def compute_gains(styled: Mapping[str, float | None], unstyled: Mapping[str, float | None]) -> dict[str, float | None]:
    """The gains of a styled picture over the unstyled one of its prompt and seed, for the metrics that both have."""
    gains: dict[str, float | None] = {}
    for source, gain in GAINS.items():
        after, before = styled.get(source), unstyled.get(source)
        if after is not None and before is not None:
            gains[gain.name] = relate_gain(after, before)
    return gains


def _summarize(
    pair_id: str, prompt: str, strength: float | None, weight: float | None, metric: str, values: Sequence[float], evaluate: EvaluateConfig
) -> Summary:
    value, low, high = bootstrap_mean(list(values), evaluate.bootstrap_samples, evaluate.bootstrap_seed)
    known = len(values) > 1  # one picture says nothing of how far others would lie from it
    return Summary(pair_id, prompt, strength, weight, metric, value, low if known else None, high if known else None, len(values))
