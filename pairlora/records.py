"""The nouns that cross process and task boundaries: small, frozen, and without behaviour of their own."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["done", "reused", "failed", "invalid", "pending", "cancelled"]


class Record(BaseModel):
    """A frozen pydantic model that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Record):
    """One thing that is wrong with a row of a manifest, and what to do about it."""

    row: int = Field(description="1-based row of the manifest, its header not counted; 0 for the manifest as a whole")
    field: str
    what: str
    remedy: str

    def __str__(self) -> str:
        where = f"row {self.row}, {self.field}" if self.row else self.field
        return f"{where}: {self.what}; {self.remedy}"


class Pair(Record):
    """One row of a manifest: how a scene looks, and how it shall look. URLs are absolute."""

    row: int = Field(description="1-based row of the manifest, its header not counted")
    pair_id: str = Field(description="slug, unique in the manifest")
    content: str = Field(description="URL of the content picture")
    style: str = Field(description="URL of the style picture, the same scene in the new style")
    content_prompt: str = Field(
        description="what the content picture shows, as the base would be asked for it; {identifier} marks the identifier's place"
    )
    style_template: str = Field(description="a phrase with {prompt} in it: '{prompt} in digital art style'")
    identifier: str = Field(default="", description="rare word that stands for the instance in training prompts only")
    test_prompts: tuple[str, ...] = Field(default=(), description="prompts to draw in the style; the content prompt where empty")
    truth: dict[str, str] = Field(default_factory=dict, description="URL of the ground-truth picture of a test prompt, by prompt")
    group: str = ""
    licence: str = ""
    consent: str = ""
    overrides: dict[str, Any] = Field(default_factory=dict, description="fields of the training configuration for this pair alone")

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts that are drawn for this pair."""
        return self.test_prompts or (self.plain_prompt,)

    @property
    def training_prompt(self) -> str:
        """The content prompt with the identifier in its place."""
        return " ".join(self.content_prompt.replace("{identifier}", self.identifier).split())

    @property
    def plain_prompt(self) -> str:
        """The content prompt without the identifier, as it is read at inference."""
        return " ".join(self.content_prompt.replace("{identifier}", "").split())

    def style_prompt(self, prompt: str) -> str:
        """The prompt in the pair's style: the template around it."""
        return self.style_template.replace("{prompt}", prompt)


class Job(Record):
    """A pair with the digests of its pictures and the identity of its training."""

    pair: Pair
    content_sha256: str
    style_sha256: str
    truth_sha256: dict[str, str] = Field(default_factory=dict, description="digest of the ground truth of a prompt, by prompt")
    train: dict[str, Any] = Field(description="the pair's training configuration, overrides applied")
    fingerprint: str = Field(description="sha256 of all that changes the trained weights, and of nothing else")

    @property
    def row(self) -> int:
        return self.pair.row

    @property
    def row_id(self) -> str:
        """The id of its row of the manifest."""
        return self.pair.pair_id

    @property
    def pictures(self) -> tuple[tuple[str, str], ...]:
        """Column of the manifest and digest of every picture that the job reads."""
        return (("content", self.content_sha256), ("style", self.style_sha256), *(("truth", one) for one in self.truth_sha256.values()))


class RowJob(Protocol):
    """What is to be done for one row of a manifest: a pair's `Job`, or an asset's."""

    @property
    def row(self) -> int: ...

    @property
    def row_id(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def pictures(self) -> tuple[tuple[str, str], ...]: ...


class RowShard(Protocol):
    """Rows of a manifest that one task run does: a `Shard` of pairs, or one of assets."""

    @property
    def name(self) -> str: ...

    @property
    def jobs(self) -> Sequence[RowJob]: ...


class RowPlan(Protocol):
    """What a run has to do, by shards, and what it was planned from."""

    @property
    def run_id(self) -> str: ...

    @property
    def started_at(self) -> datetime: ...

    @property
    def manifest(self) -> str: ...

    @property
    def manifest_sha256(self) -> str: ...

    @property
    def shards(self) -> Sequence[RowShard]: ...

    @property
    def jobs(self) -> Sequence[RowJob]: ...

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self: ...


class PlannedImage(Record):
    """A picture that a job calls for: prompt, seed, and strength λ or the weight of the style as a plain LoRA."""

    prompt: str
    style_prompt: str
    seed: int
    strength: float = Field(description="strength λ of style guidance; 0 where there is none")
    lora_weight: float | None = Field(default=None, description="weight of the style adapter as a plain LoRA, without style guidance")

    @property
    def is_unstyled(self) -> bool:
        """Whether the base draws it alone."""
        return self.strength == 0 and self.lora_weight is None


class Pack(Record):
    """Jobs that train in one batch on one base."""

    jobs: tuple[Job, ...]


class Shard(Record):
    """Packs that one task run does one after another."""

    name: str
    packs: tuple[Pack, ...]

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(job for pack in self.packs for job in pack.jobs)


class Plan(Record):
    """What a run has to do: the shards, and the rows of the manifest that cannot be done."""

    run_id: str
    started_at: datetime
    manifest: str
    manifest_sha256: str
    base_digest: str
    shards: tuple[Shard, ...]
    unplanned: tuple["Outcome", ...] = Field(
        default=(), description="rows that cannot be done: invalid ones, and pictures that cannot be read"
    )

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(job for shard in self.shards for job in shard.jobs)


class Portion(Record):
    """Shards of a run that one flow run does on a machine of its own; begun again, it has another name."""

    run_id: str
    name: str
    shards: tuple[str, ...] = Field(description="names of the shards, as the run's plan cuts them")


class Heartbeat(Record):
    """The sign of life of a portion: it changes while the portion's process lives, and is closed where that did all it could."""

    count: int
    settled: int = Field(default=0, description="rows of the manifest that this process settled")
    closed: bool = False


class PlannedJob(Record):
    """A job as a run keeps it for its report; `job` is its JSON, since its maps have keys of their own."""

    pair_id: str
    fingerprint: str
    job: str


class RunRecord(Record):
    """`run.json`: what a run was asked to do, and when it ended; null while it is unfinished."""

    run_id: str
    manifest: str
    manifest_sha256: str
    config: dict[str, Any]
    versions: dict[str, str]
    started_at: datetime
    finished_at: datetime | None = None
    rescored: str | None = Field(default=None, description="id of the run whose adapters this one only evaluates again")


class Outcome(Record):
    """What became of one row of a manifest in one run: of a pair, or of an asset, whose id then stands in `pair_id`."""

    pair_id: str
    row: int
    status: Status
    fingerprint: str = ""
    error_class: str = ""
    error_message: str = ""
    attempts: int = 1
    trained: bool = Field(default=False, description="whether this run trained the adapter, or found it in the store")
    images_drawn: int = 0
    images_reused: int = 0
    shard: str = ""
    attempt: str = Field(default="", description="names the try of the shard; empty for what no shard settled")
    started_at: datetime | None = None
    ended_at: datetime | None = Field(default=None, description="null where the process ended first")
    device: str = ""
    train_seconds: float = 0.0
    draw_seconds: float = 0.0
    score_seconds: float = 0.0
    peak_memory_bytes: int = 0
    spill: float | None = Field(default=None, description="what the adapter does to pictures of other subjects; null where none is drawn")


class StepLoss(Record):
    """Losses and gradient norms of one pair at one training step; the style's are null in the content phase."""

    step: int
    content_loss: float
    style_loss: float | None
    content_gradient_norm: float
    style_gradient_norm: float | None


class AdapterRecord(Record):
    """The marker of a trained adapter: where its A and B lie, and the facts of its training.

    `*_whole_*` are of the file that stock tools load, which is rebuilt from both. A marker without `basis_url` was written
    when the store held such files themselves.
    """

    fingerprint: str
    style_url: str = Field(description="key of the style's B below the store's root")
    style_sha256: str
    style_bytes: int
    content_url: str = Field(description="key of the content's B below the store's root")
    content_sha256: str
    content_bytes: int
    basis_url: str = Field(default="", description="key of the frozen A of both roles, which all adapters of a basis share")
    basis_sha256: str = ""
    basis_bytes: int = 0
    style_whole_sha256: str = ""
    style_whole_bytes: int = 0
    content_whole_sha256: str = ""
    content_whole_bytes: int = 0
    basis_digest: str
    train: dict[str, Any]
    base: str
    base_digest: str
    losses: tuple[StepLoss, ...]
    seconds: float
    device: str
    trained_at: datetime
    made_for: str = Field(default="", description="run and pair that it was trained for, as 'run/pair'")
    pictures: tuple[str, ...] = Field(
        default=(), description="digests of the pictures that it was learned from, so that they can be forgotten"
    )
    lowered_rate: float | None = Field(
        default=None, description="learning rate of the training, where the one that was asked for had diverged; else null"
    )


class ImageRecord(Record):
    """The marker of a drawn picture. A baseline is drawn without an adapter: `fingerprint` is empty, `strength` 0."""

    image_id: str
    fingerprint: str
    prompt: str
    style_prompt: str
    seed: int
    strength: float = Field(description="strength λ of the style, in the units of the guidance scale; 0 where there is no style guidance")
    lora_weight: float | None = Field(default=None, description="weight of the style adapter as a plain LoRA, without style guidance")
    guidance_scale: float
    profile: str = Field(description="scheduler, steps, onset and size, as one line")
    url: str = Field(description="key of the PNG below the store's root")
    sha256: str
    bytes: int
    made_for: str = Field(default="", description="run and pair that it was drawn for, as 'run/pair'")

    @property
    def is_unstyled(self) -> bool:
        """Whether the base drew it alone."""
        return self.strength == 0 and self.lora_weight is None


class PrefixRecord(Record):
    """The marker of latents at the onset: every style of one prompt and seed starts from them."""

    prefix_id: str
    prompt: str
    seed: int
    guidance_scale: float
    profile: str = Field(description="scheduler, steps, onset and size, as one line")
    url: str = Field(description="key of the safetensors file below the store's root")
    sha256: str
    bytes: int


class ImageReference(Record):
    """That a run shows a picture for a pair, and which scores go with it."""

    pair_id: str
    image_id: str
    score_id: str
    strength: float
    lora_weight: float | None = None
    is_cut: bool = Field(default=False, description="whether the prompt that it was drawn with is longer than the base reads")

    @property
    def is_unstyled(self) -> bool:
        """Whether the base drew it alone."""
        return self.strength == 0 and self.lora_weight is None


class ScoreRecord(Record):
    """The marker of the scores of one image, measured for one job."""

    score_id: str
    image_id: str
    scores: dict[str, float | None]
    encoders: dict[str, str] = Field(description="identity of the encoder behind each metric; empty where none is used")


class FinishedPair(Record):
    """The marker of a pair that is trained, drawn and scored under one configuration: what a run shows for it."""

    fingerprint: str
    references: tuple[ImageReference, ...]
    sizes: dict[str, int] = Field(description="bytes of the payloads that must be there, by key")
    spill: float | None = None


class Review(Record):
    """What a person decided on a pair: its adapter as one run showed it. Decisions are kept; the newest counts."""

    run_id: str
    pair_id: str
    fingerprint: str = Field(description="the adapter's identity; one that is trained anew is to be looked at again")
    verdict: Literal["accept", "reject"]
    strength: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="strength λ that the adapter is to be used at")
    comment: str = Field(default="", max_length=4000)
    reviewer: str = Field(min_length=1, max_length=200)
    reviewed_at: datetime


class Tombstone(Record):
    """That a picture was forgotten, and when. It holds nothing of the picture but the digest of its bytes."""

    sha256: str
    forgotten_at: datetime
