"""What decides a run over a catalogue: which styles, how a finished picture gets into the sampler, what files come out."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pairlora.config import (
    BaseConfig,
    EvaluateConfig,
    ExecutionConfig,
    FleetConfig,
    OutputConfig,
    PictureLimits,
    SampleConfig,
    fill_from_preset,
    read_section,
)
from pairlora.manifest.rows import suggest
from pairlora.records import Record

WAYS = ("invert", "noise")
"""Ways in that every base has; 'control' needs a ControlNet beside it."""


class ControlConfig(Record):
    """A ControlNet that holds drawings to the edges of the asset."""

    name: str = Field(description="folder or hub id of a ControlNet in diffusers' layout, made for the base and for Canny's edges")
    revision: str | None = Field(default=None, description="commit or tag of a hub id, which must be pinned")
    licence: str | None = Field(default=None, description="its licence, in the hub's words; read from the card of a folder where null")
    scale: float = Field(default=1.0, ge=0, description="how strongly it is heard; 0 is the base alone")
    low: int = Field(default=100, ge=0, description="Canny's lower threshold: weaker gradients are no edge")
    high: int = Field(
        default=200, ge=0, description="Canny's upper threshold: stronger gradients are edges, and those between where they touch one"
    )
    start: Literal["noise", "timestep"] = Field(
        default="noise",
        description="'noise' draws from noise alone, the base down to the timestep and then in the style: only the edges are the asset's; "
        "'timestep' begins at the asset with noise up to the timestep, as `way` 'noise' does",
    )

    @model_validator(mode="after")
    def _check(self) -> "ControlConfig":
        if self.low > self.high:
            raise ValueError(f"low = {self.low} exceeds high = {self.high}; swap them")
        return self


class EntryConfig(Record):
    """How a finished picture gets into the sampler, and where style guidance takes over."""

    way: Literal["invert", "noise", "control"] = Field(
        default="invert",
        description="'invert' walks the base's own steps backwards, so that strength 0 gives the picture back; 'noise' adds noise as "
        "img2img does, and the base redraws what the noise hid; 'control' holds the drawing to the picture's edges by a ControlNet",
    )
    timestep: int = Field(
        default=600, ge=1, le=1000, description="drawing starts at the first timestep of 1000 up to this; the paper's is 600"
    )
    refinements: int = Field(
        default=3,
        ge=0,
        description="of 'invert': how often each backward step is corrected by a fixed-point iteration; 0 is plain DDIM inversion",
    )
    guidance_scale: float | None = Field(
        default=None,
        ge=1,
        description="λ_cfg of inverting and drawing; where null, 1 for 'invert' (no unconditional row), that of `sample` for the others",
    )
    seed: int = Field(default=0, ge=0, description="of 'noise' and 'control': seed of the noise, the same for all assets of one size")
    control: ControlConfig | None = Field(default=None, description="of 'control': the ControlNet, of which `name` must be given")

    @model_validator(mode="after")
    def _check(self) -> "EntryConfig":
        if self.way == "control" and self.control is None:
            raise ValueError("way = 'control' needs a ControlNet made for the base; set entry.control.name to its folder or hub id")
        return self

    @property
    def net(self) -> ControlConfig | None:
        """The ControlNet that is heard; null where this way in takes none."""
        return self.control if self.way == "control" else None

    @property
    def evaluates(self) -> bool:
        """Whether bringing an asset in takes evaluations of the denoiser, so that its latents are worth keeping."""
        return self.way == "invert" or (self.net is not None and self.net.start == "noise")


class TilesConfig(Record):
    """How finely assets are drawn that are larger than the base's own size."""

    most: int = Field(
        default=1,
        ge=1,
        description="tiles that a large asset is drawn in at most, so that it keeps more of its detail; 1 draws every asset as one",
    )
    overlap: float = Field(default=0.25, ge=0, le=0.5, description="share of a tile's side that neighbours draw both, and that is blended")
    prompt: str | None = Field(
        default=None,
        description="what any tile shows, 'a flat icon' say; null is the asset's own prompt, by which a style puts the whole subject into "
        "every tile, empty ground too",
    )


class FilesConfig(Record):
    """The files that come out, always of the size of the asset."""

    format: Literal["same", "png", "jpeg", "webp", "tiff"] = Field(
        default="same", description="'same' keeps the asset's; an asset with alpha or a mask that JPEG cannot keep becomes PNG"
    )
    profile: Literal["carry", "drop"] = Field(
        default="carry", description="'carry' writes in the asset's own RGB or grey colour profile, 'drop' in sRGB without one"
    )
    exif: Literal["carry", "drop"] = Field(default="carry", description="'carry' keeps the asset's EXIF, its orientation undone")
    background: str = Field(
        default="#ffffff", pattern=r"^#[0-9a-f]{6}$", description="colour behind transparent assets while they are drawn, as #rrggbb"
    )


class CatalogueFleetConfig(FleetConfig):
    """How a catalogue is spread over machines. Without a fleet it has no effect."""

    deployment: str = Field(default="stylize-portion/gpu", description="the Prefect deployment that does a portion, as flow/deployment")


class CatalogueConfig(Record):
    """Everything that decides a run over a catalogue. Seeds and LoRA weights of `sample` have no meaning here; `entry` says the onset."""

    manifest: str = Field(description="URL of the catalogue: CSV, Parquet or JSONL with asset_id, image and prompt")
    output: OutputConfig
    adapters: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        min_length=1,
        description="trained adapters in the store: a fingerprint (8 digits or more), 'run/pair', or a pair of the newest run that has it; "
        "or LoRA files of any trainer: a .safetensors file, a folder of PEFT, or a URL of either on s3, gs or az",
    )
    style_templates: dict[str, str] = Field(
        default_factory=dict,
        description="how prompts read in the style of a LoRA file, by its name in `adapters`, where its header does not say or to say "
        "otherwise: '{prompt}, in bold ink'",
    )
    partial: bool = Field(default=False, description="draw with a LoRA file of which some layers cannot be used")
    prompt_template: str | None = Field(
        default=None, description="prompt of assets that give none, over columns of the catalogue: 'a flat icon of {name}'"
    )
    base: BaseConfig = BaseConfig()
    entry: EntryConfig = EntryConfig()
    sample: SampleConfig = SampleConfig()
    tiles: TilesConfig = TilesConfig()
    files: FilesConfig = FilesConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    execution: ExecutionConfig = ExecutionConfig()
    fleet: CatalogueFleetConfig = CatalogueFleetConfig()
    pictures: PictureLimits = PictureLimits()
    shard_assets: int = Field(default=20, ge=1, description="assets that one task run does")
    batch_assets: int = Field(default=8, ge=1, description="assets of one size that are drawn together")

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        return fill_from_preset(values, cls.model_fields)

    @model_validator(mode="after")
    def _check(self) -> "CatalogueConfig":
        if len(set(self.adapters)) != len(self.adapters):
            raise ValueError(f"adapters must name none twice; it is {list(self.adapters)}")
        if self.prompt_template is not None and re.search(r"[{}]", re.sub(r"\{\w+\}", "", self.prompt_template)):
            raise ValueError(f"prompt_template = '{self.prompt_template}' has braces other than those of a column: '{{name}}'")
        if self.tiles.most > 1 and self.entry.net is not None and self.entry.net.start == "noise":
            raise ValueError(
                "tiles.most > 1 needs drawings that begin at the asset, or each tile invents its own colours; "
                "set entry.control.start to timestep"
            )
        return self

    @model_validator(mode="after")
    def _check_templates(self) -> "CatalogueConfig":
        problems = [
            f"style_templates['{name}'] is of no adapter; {suggest(name, self.adapters)}"
            for name in self.style_templates
            if name not in self.adapters
        ]
        problems += [
            f"style_templates['{name}'] = '{template}' has no {{prompt}} in it; write '{{prompt}}, in ink'"
            for name, template in self.style_templates.items()
            if "{prompt}" not in template
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways in that this configuration could go."""
        return (*WAYS, "control") if self.entry.control else WAYS

    @property
    def drawing(self) -> SampleConfig:
        """How the sampler is set for a catalogue: styles from the entry's timestep on, at its guidance scale."""
        scale = self.entry.guidance_scale or (1.0 if self.entry.way == "invert" else self.sample.guidance_scale)
        changes: dict[str, Any] = {"onset": self.entry.timestep, "guidance_scale": scale}
        if scale == 1:
            changes["guidance_interval"] = None
        return self.sample.model_copy(update=changes)

    @property
    def strengths(self) -> tuple[float, ...]:
        """Strengths λ in ascending order, 0 among them: the reconstruction, which every score is measured against.

        They are shares of the guidance scale of the way in, so that at 1 the styled prediction stands in the place of the plain one.
        """
        return self.drawing.strengths


def read_catalogue_config(settings: dict[str, Any]) -> CatalogueConfig:
    """A catalogue run's configuration from nested values; ConfigError names every wrong field."""
    return read_section(CatalogueConfig, settings)


def relate_strengths(settings: dict[str, Any], strengths: Sequence[float]) -> dict[str, Any]:
    """Nested values with these strengths λ, which the configuration writes as multiples of the way's guidance scale."""
    scale = read_catalogue_config(settings).drawing.guidance_scale
    relative = tuple(dict.fromkeys((0.0, *(strength / scale for strength in strengths))))
    return settings | {"sample": settings.get("sample", {}) | {"relative_strengths": relative}}
