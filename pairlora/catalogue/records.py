"""The nouns of a catalogue that cross process and task boundaries: small, frozen, and without behaviour of their own."""

from datetime import datetime
from typing import Any

from pydantic import Field, model_validator

from pairlora.records import Job, Outcome, Record


class Asset(Record):
    """One row of a catalogue: a picture that exists, and what it shows. URLs are absolute."""

    row: int = Field(description="1-based row of the catalogue, its header not counted")
    asset_id: str = Field(description="unique in the catalogue; any text that can be a file's name")
    image: str = Field(description="URL of the picture")
    prompt: str = Field(description="what the picture shows, as the base would be asked for it")
    mask: str = Field(default="", description="URL of a picture of the asset's shape: white is drawn anew, black stays as it is")
    truth: dict[str, str] = Field(
        default_factory=dict, description="URL of the picture that the styled asset should be, by adapter or group of its pair; '' for all"
    )
    group: str = ""
    licence: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """All pictures that the row names."""
        return (self.image, *([self.mask] if self.mask else []), *self.truth.values())


class ForeignFile(Record):
    """A LoRA file that a catalogue is drawn with, of which nobody here knows the pair. Its bytes lie in the store."""

    source: str = Field(description="the file, folder or URL that was named, as messages may show it")
    style_template: str = Field(description="how prompts read in its style, with {prompt} in it")
    left_out: str = Field(default="", description="what of it is not used, in words; empty where all is, or the base was not known")

    @property
    def words(self) -> str:
        """File, template and what is not used, as a plan says them."""
        told = f"{self.source}, prompts read '{self.style_template}'"
        return f"{told}; {self.left_out}; drawn without them" if self.left_out else told


class ForeignRecord(Record):
    """The marker of a LoRA file in the store: its bytes as they were when a run was planned."""

    fingerprint: str = Field(description="digest of the bytes, and of the settings where there are any")
    settings: dict[str, Any] = Field(default_factory=dict, description="what decides its scales and stands beside it in a folder of PEFT")
    trained_as: str = Field(default="", description="by its header, the fingerprint of the training that it was exported from")
    url: str = Field(description="key of the file below the store's root")
    sha256: str
    bytes: int


class ChosenAdapter(Record):
    """An adapter that a catalogue is drawn with: trained on a pair in the store, or a LoRA file of which no pair is known."""

    label: str = Field(
        description="the pair's id or the file's name, with the fingerprint where several have the same: what tables and files say"
    )
    fingerprint: str
    job: Job | None = Field(default=None, description="the pair with its digests, which directions are measured against")
    file: ForeignFile | None = None

    @model_validator(mode="after")
    def _check(self) -> "ChosenAdapter":
        if (self.job is None) == (self.file is None):
            raise ValueError(f"adapter {self.label!r} must be of a pair or of a file, and not of both")
        return self

    @property
    def style_template(self) -> str:
        """How prompts read in its style, with {prompt} in it."""
        source = self.file or (self.job and self.job.pair)
        return source.style_template if source else ""

    def style_prompt(self, prompt: str) -> str:
        """A prompt in its style."""
        return self.style_template.replace("{prompt}", prompt)

    @property
    def compared(self) -> tuple[str, ...]:
        """What scores of its pictures compare with: digests of the pair's pictures and its prompt; nothing where no pair is known."""
        return (self.job.content_sha256, self.job.style_sha256, self.job.pair.plain_prompt) if self.job else ()

    @property
    def truth_names(self) -> tuple[str, ...]:
        """What a catalogue may call its truths, the closest first."""
        return (self.label, self.job.pair.pair_id, self.job.pair.group, "") if self.job else (self.label, "")

    @property
    def choice(self) -> str:
        """What tells it from other adapters of a run: a file is another one with another template."""
        return f"{self.fingerprint} {self.file.style_template}" if self.file else self.fingerprint


class AssetJob(Record):
    """An asset with the digests of its pictures; `fingerprint` is the identity of all that a run makes of it."""

    asset: Asset
    image_sha256: str
    mask_sha256: str = ""
    truth_sha256: dict[str, str] = Field(default_factory=dict, description="digest of each truth, by the same keys")
    fingerprint: str

    @property
    def row(self) -> int:
        return self.asset.row

    @property
    def row_id(self) -> str:
        """The id of its row of the catalogue."""
        return self.asset.asset_id

    @property
    def pictures(self) -> tuple[tuple[str, str], ...]:
        """Column of the catalogue and digest of every picture that the job reads."""
        masks = (("mask", self.mask_sha256),) if self.mask_sha256 else ()
        return (("image", self.image_sha256), *masks, *(("truth", one) for one in self.truth_sha256.values()))


class AssetShard(Record):
    """Assets that one task run does, with the adapters that they are drawn with."""

    name: str
    jobs: tuple[AssetJob, ...]
    adapters: tuple[ChosenAdapter, ...]


class CataloguePlan(Record):
    """What a run has to do: the shards, and the rows of the catalogue that cannot be done."""

    run_id: str
    started_at: datetime
    manifest: str
    manifest_sha256: str
    base_digest: str
    adapters: tuple[ChosenAdapter, ...]
    shards: tuple[AssetShard, ...]
    unplanned: tuple[Outcome, ...] = ()

    @property
    def jobs(self) -> tuple[AssetJob, ...]:
        return tuple(job for shard in self.shards for job in shard.jobs)


class PlannedAsset(Record):
    """An asset's job as a run keeps it for its report, as JSON."""

    asset_id: str
    job: str


class PlannedAdapter(Record):
    """An adapter as a run keeps it for its report, as JSON."""

    label: str
    adapter: str


class InversionRecord(Record):
    """The marker of the latents that a picture was inverted to: every adapter and strength starts from them."""

    inversion_id: str
    image_sha256: str
    prompt: str
    profile: str
    url: str = Field(description="key of the safetensors file below the store's root")
    sha256: str
    bytes: int


class StyledRecord(Record):
    """The marker of a styled asset. The reconstruction is of no adapter: `fingerprint` is empty, `strength` 0."""

    styled_id: str
    fingerprint: str
    image_sha256: str = Field(description="digest of the asset's picture")
    prompt: str
    style_prompt: str
    strength: float
    guidance_scale: float
    profile: str = Field(description="way in, scheduler, steps, timestep and size, as one line")
    width: int
    height: int
    url: str = Field(description="key of the file below the store's root")
    sha256: str
    bytes: int


class StyledReference(Record):
    """That a run shows a styled asset, and which scores go with it as one of an adapter."""

    row: int
    asset_id: str
    adapter: str = Field(description="label of the adapter; of strength 0 there is a reference an adapter, all with one picture")
    fingerprint: str
    strength: float
    styled_id: str
    score_id: str


class FinishedAsset(Record):
    """The marker of an asset that is drawn and scored under one configuration: what a run shows for it."""

    references: tuple[StyledReference, ...]
    sizes: dict[str, int] = Field(description="bytes of the payloads that must be there, by key")
