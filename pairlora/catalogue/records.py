"""The nouns of a catalogue that cross process and task boundaries: small, frozen, and without behaviour of their own."""

from datetime import datetime

from pydantic import Field

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


class ChosenAdapter(Record):
    """A trained adapter that a catalogue is drawn with, and the pair that it was trained on."""

    label: str = Field(description="the pair's id, with the fingerprint where several adapters are of one: what tables and files say")
    fingerprint: str
    job: Job = Field(description="the pair with its digests, which tells the style prompt and what directions are measured against")


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
