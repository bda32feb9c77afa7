"""One configuration for a run: frozen, typed, units in the field docs, the published recipes as presets.

The same model is read from TOML or YAML by the command line, shown as a form by Prefect, and recorded in `run.json`.
"""

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from pairlora.errors import ConfigError
from pairlora.presets import HUB_IDS, PRESETS
from pairlora.records import Record

AnyRecord = TypeVar("AnyRecord", bound=Record)
AUTO_PACK = 8
"""Pairs of a planned pack where its size is left to the device; larger ones gain little and leave other devices idle."""


UNKNOWN_LICENCE = "unknown"
"""Stands in the list of allowed licences for a base whose licence nobody states."""


class BaseConfig(Record):
    """Which base model draws, and how it is loaded."""

    name: str = Field(
        default="embedded", description="'embedded', 'sdxl', 'sd15', 'flux', a folder, a single .safetensors file, or a hub id"
    )
    config: str | None = Field(
        default=None, description="what a single file takes configs, tokenizers and preset from: a named base, a folder, or a hub id"
    )
    revision: str | None = Field(default=None, description="commit or tag of a hub id, in name or config; pinned for the named bases")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="precision of the frozen base; B is always float32"
    )
    licence: str | None = Field(
        default=None, description="licence of the base, in the hub's words; known for named bases, read from the card of a folder"
    )
    allowed_licences: tuple[str, ...] = Field(
        default=(
            "apache-2.0",
            "mit",
            "cc0-1.0",
            "cc-by-4.0",
            "openrail",
            "openrail++",
            "creativeml-openrail-m",
            UNKNOWN_LICENCE,
        ),
        description="licences of bases that a run may use; 'unknown' stands for a folder, file or hub id that states none",
    )


class TrainConfig(Record):
    """The training of one pair. The defaults are the published recipe for SDXL."""

    content_rank: int = Field(default=64, ge=1, description="rank of the content adapter")
    style_rank: int = Field(default=64, ge=1, description="rank of the style adapter")
    steps: int = Field(default=750, ge=1, description="optimiser steps in all")
    content_steps: int = Field(default=250, ge=0, description="first steps that train the content adapter alone")
    update: Literal["joint", "alternating"] = Field(
        default="joint", description="both adapters from one pass; or content first, so that the style pass sees it after its update"
    )
    learning_rate: float = Field(default=1e-5, gt=0, description="AdamW, constant")
    weight_decay: float = Field(default=1e-4, ge=0)
    gradient_clip: float | None = Field(default=None, gt=0, description="largest gradient norm of a role of a pair; none where null")
    draws: int = Field(default=1, ge=1, description="(noise, timestep) draws per step, each shared by content and style")
    timestep_range: tuple[int, int] | None = Field(
        default=None, description="(lowest, highest) timestep of 1000 that training draws, the highest left out; all where null"
    )
    layers: str | None = Field(
        default=None, description="regular expression that finds the attention projections to adapt, in their names; all where null"
    )
    resolution: int = Field(default=512, ge=16, description="side of the training pictures in pixels")
    basis_seed: int = Field(default=0, ge=0, description="seed of the frozen orthonormal A; styles to be stacked take different ones")
    seed: int = Field(default=0, ge=0, description="seed of the training's draws, together with the pair's own inputs")

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.content_steps > self.steps:
            raise ValueError(f"content_steps = {self.content_steps} exceeds steps = {self.steps}; lower content_steps")
        if self.timestep_range is not None and not 0 <= self.timestep_range[0] < self.timestep_range[1] <= 1000:
            raise ValueError(f"timestep_range = {self.timestep_range} must be (lowest, highest) with 0 <= lowest < highest <= 1000")
        if self.layers is not None:
            self._check_layers(self.layers)
        return self

    @staticmethod
    def _check_layers(layers: str) -> None:
        try:
            re.compile(layers)
        except re.error as error:
            raise ValueError(f"layers = '{layers}' is no regular expression: {error}") from error


class SampleConfig(Record):
    """How pictures are drawn. Defaults: the paper's figures for SDXL."""

    scheduler: str | None = Field(default=None, description="class name of a diffusers scheduler; the base's own where null")
    steps: int = Field(default=50, ge=1, description="denoising steps")
    guidance_scale: float = Field(default=5.0, ge=1, description="λ_cfg; 1 drops the unconditional row")
    relative_strengths: tuple[float, ...] = Field(
        default=(0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5), description="strengths to draw, as multiples of the guidance scale"
    )
    lora_weights: tuple[float, ...] = Field(
        default=(),
        description="weights at which the adapter is also drawn as a plain LoRA, without style guidance; about 0.6 to 1; one more "
        "picture a prompt and seed each",
    )
    onset: int = Field(default=800, ge=0, le=1000, description="style guidance starts at timesteps up to this; 1000 switches the onset off")
    guidance_interval: tuple[int, int] | None = Field(
        default=None,
        description="an approximation: (high, low), the timesteps of 1000 within which the unconditional row is computed; "
        "outside of them the guidance scale is 1 and strengths keep their share of it; everywhere where null",
    )
    seeds: tuple[int, ...] = Field(default=(0, 1), description="seeds drawn for each prompt; at least two for intervals")
    size: int = Field(default=1024, ge=16, description="side of the drawn pictures in pixels")
    batch_rows: int = Field(default=8, ge=1, description="most rows in one forward of the denoiser")

    @model_validator(mode="after")
    def _check(self) -> "SampleConfig":
        for field in ("relative_strengths", "seeds"):
            values = getattr(self, field)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{field} must hold at least one value and none twice; it is {list(values)}")
        if self.guidance_interval is not None:
            self._check_interval(*self.guidance_interval)
        if len(set(self.lora_weights)) != len(self.lora_weights) or any(weight <= 0 for weight in self.lora_weights):
            raise ValueError(f"lora_weights must hold positive values and none twice; it is {list(self.lora_weights)}")
        return self

    def _check_interval(self, high: int, low: int) -> None:
        if not 0 <= low <= high <= 1000:
            raise ValueError(f"guidance_interval = ({high}, {low}) must be (high, low) with 0 <= low <= high <= 1000")
        if self.guidance_scale == 1:
            raise ValueError("guidance_interval has no meaning at guidance_scale = 1, which has no unconditional row; leave it out")

    @property
    def strengths(self) -> tuple[float, ...]:
        """Strengths λ in ascending order; 0 is always among them, since every score is measured against it."""
        return tuple(sorted({0.0, *(round(self.guidance_scale * value, 6) for value in self.relative_strengths)}))


class EvaluateConfig(Record):
    """What is measured, the rule that recommends a strength, and the rules of the verdict.

    Each rule of the verdict has two limits. A pair is accepted where it keeps all of the first, rejected where it breaks
    any of the second, and to be looked at in between. All compare with the unstyled pictures of the same prompts and seeds.
    """

    clip: str = Field(
        default="openai/clip-vit-large-patch14", description="hub id or folder of a transformers CLIP; 'embedded' for the small one"
    )
    clip_revision: str | None = Field(default="32bd64288804d66eefd0ccbe215aa642df71cc41", description="commit or tag of a hub id")
    perceptual: bool = Field(default=False, description="also measure with EfficientNet-Lite0 features (extra pairlora[perceptual])")
    least_progress: float = Field(
        default=0.2,
        gt=0,
        description="recommended strength: the smallest whose mean progress, a share of the pair's own change, reaches this (else the "
        "one that went furthest) …",
    )
    least_pace: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="… whose progress over strength is at least this share of that of any stronger one; 0 asks for nothing …",
    )
    structure_floor: float = Field(default=0.2, ge=0, le=1, description="… among those whose mean structure_ssim stays above this")
    accept_direction: float = Field(default=0.15, ge=-1, le=1, description="least mean direction, a cosine, at the recommended strength")
    reject_direction: float = Field(default=0.05, ge=-1, le=1, description="mean direction, a cosine, below which hardly any style came")
    accept_similarity: float = Field(
        default=0.97, ge=-1, le=1, description="largest structure_similarity, a cosine, above which one hardly sees that anything changed"
    )
    reject_similarity: float = Field(default=1.0, ge=-1, le=1, description="structure_similarity above which nothing changed at all")
    accept_text_loss: float = Field(default=0.2, ge=0, le=1, description="share of the unstyled pictures' text_alignment that may be lost")
    reject_text_loss: float = Field(default=0.5, ge=0, le=1, description="share of it whose loss means that prompts are not followed")
    accept_leakage: float = Field(
        default=0.1, ge=0, le=2, description="largest content_leakage and subject_leakage, differences of cosines"
    )
    reject_leakage: float = Field(default=0.25, ge=0, le=2, description="leakage above which the training subject has taken over")
    accept_diversity: float = Field(default=0.7, ge=0, description="least diversity, as a ratio to the unstyled pictures'")
    reject_diversity: float = Field(default=0.4, ge=0, description="diversity below which all seeds look alike")
    accept_spill: float = Field(
        default=1.0, ge=0, description="largest spill onto other pictures, as a share of the base's own error on the style picture"
    )
    reject_spill: float = Field(default=2.0, ge=0, description="spill above which the adapter changes whatever it is shown")
    accept_certainty: float = Field(
        default=0.5, ge=0, le=1, description="least share of bootstrap resamples over (prompt, seed) that recommend the same strength"
    )
    bootstrap_samples: int = Field(default=1000, ge=100)
    bootstrap_seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        least_rules, most_rules = ("direction", "diversity"), ("similarity", "text_loss", "leakage", "spill")
        for rule in (*least_rules, *most_rules):
            accept, reject = getattr(self, f"accept_{rule}"), getattr(self, f"reject_{rule}")
            if (accept < reject) if rule in least_rules else (accept > reject):
                raise ValueError(f"accept_{rule} = {accept:g} is looser than reject_{rule} = {reject:g}; swap or mend them")
        return self


class ExecutionConfig(Record):
    """Where the work is done, and what is done about failures."""

    devices: str = Field(default="auto", description="'auto', 'cpu', 'cpu:2' (two workers of one thread), 'cuda', 'cuda:0,1'")
    pack_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default=4, description="pairs that train in one batch; 'auto': as many as the device's memory holds, a rule on the CPU, 8 at most"
    )
    gradient_checkpointing: bool = Field(default=False, description="compute activations twice instead of keeping them: less memory")
    train_missing: bool = Field(default=True, description="train adapters that the store lacks; where false, their pairs fail")
    checkpoint_seconds: float = Field(
        default=300, ge=0, description="a training is saved this often, or at 20 times what saving takes; 0 after every step"
    )
    shard_packs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="packs that one task run does; 'auto': one, and more where a run would have over 400 task runs"
    )
    shard_timeout_seconds: float = Field(default=4 * 3600, gt=0, description="a worker that takes longer for one shard is killed")
    retries: int = Field(default=2, ge=0, description="times a shard is done again after its worker died or its store failed")
    allowed_failures: float = Field(default=0.2, ge=0, le=1, description="share of failed pairs above which the run counts as failed")
    skip_bad_rows: bool = Field(default=False, description="report bad rows of the manifest as invalid and go on, instead of refusing it")
    offline: bool = Field(default=False, description="touch no network beyond the store")

    @property
    def largest_pack(self) -> int:
        """Pairs of a pack as it is planned; with 'auto' the worker that trains it may cut it further."""
        return AUTO_PACK if self.pack_size == "auto" else self.pack_size


class FleetConfig(Record):
    """How the work is spread over machines, and when a machine counts as lost. Without a fleet it has no effect."""

    deployment: str = Field(default="customize-portion/gpu", description="the Prefect deployment that does a portion, as flow/deployment")
    portions: int = Field(
        default=8,
        ge=1,
        description="flow runs at most that the work is cut into, more only where one would hold over 1,000 shards; two or three a "
        "machine, so that none waits long for the last",
    )
    retries: int = Field(default=3, ge=0, description="times in a row that a portion is begun again without a row of it getting done")
    silence_seconds: float = Field(
        default=300, gt=0, description="a portion that begins and then gives the store no sign of life for so long is begun again elsewhere"
    )
    start_seconds: float = Field(
        default=3600, gt=0, description="the same for a flow run that a worker took and that does not begin, as pods that never start"
    )


class PictureLimits(Record):
    """What a picture of a manifest may be at most, checked before it is decoded."""

    max_bytes: int = Field(default=50_000_000, ge=1, description="bytes of the file")
    max_pixels: int = Field(default=50_000_000, ge=1, description="width × height")


class OutputConfig(Record):
    """Where results go."""

    url: str = Field(description="root of the store: a folder or a URL of s3, gs or az")
    single_writer: bool = Field(False, description="accept a target without create-only writes; a promise that one run writes at a time")
    secret_block: str | None = Field(
        default=None, description="name of a Prefect secret block: a JSON map of the store's variables (AWS_*, AZURE_*, GOOGLE_*, GCS_*)"
    )
    timeout_seconds: float = Field(
        default=120, gt=0, description="a call of a bucket that takes longer, its retries included, has failed; a second more a megabyte"
    )
    run_id: str | None = Field(
        default=None, description="names the run; else the newest unfinished one of the same manifest and config goes on"
    )


class RunConfig(Record):
    """Everything that decides a run."""

    manifest: str = Field(description="URL of the manifest: CSV, Parquet or JSONL")
    output: OutputConfig
    base: BaseConfig = BaseConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    execution: ExecutionConfig = ExecutionConfig()
    fleet: FleetConfig = FleetConfig()
    pictures: PictureLimits = PictureLimits()

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        return fill_from_preset(values, cls.model_fields)


class AnyRun(Protocol):
    """What every kind of run says of itself, whatever it does."""

    @property
    def manifest(self) -> str: ...

    @property
    def output(self) -> OutputConfig: ...

    @property
    def base(self) -> BaseConfig: ...

    @property
    def evaluate(self) -> EvaluateConfig: ...

    @property
    def execution(self) -> ExecutionConfig: ...

    def model_dump_json(self) -> str: ...


class FleetRun(AnyRun, Protocol):
    """A run that may be spread over machines."""

    @property
    def fleet(self) -> FleetConfig: ...

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]: ...

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self: ...


def fill_from_preset(values: Any, sections: Collection[str]) -> Any:
    """What the caller leaves open of `sections` comes from the preset of the base; what the caller says stands."""
    if not isinstance(values, dict):
        return values
    given = {section: _unfold(value) for section, value in values.items()}
    base = given.get("base", {})
    name = base.get("config") or base.get("name", "embedded") if isinstance(base, dict) else ""
    for section, fields in PRESETS.get(HUB_IDS.get(name, name), {}).items():
        if section in sections and isinstance(chosen := given.get(section, {}), dict):
            given[section] = fields | chosen
    return given


def read_config(settings: dict[str, Any]) -> RunConfig:
    """A run's configuration from nested values; ConfigError names every wrong field."""
    return read_section(RunConfig, settings)


def read_section(kind: type[AnyRecord], settings: dict[str, Any], name: str = "configuration") -> AnyRecord:
    """A part of the configuration from its values; ConfigError names every wrong field."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, problem['loc'])) or name}: {problem['msg']}" for problem in error.errors()]
        raise ConfigError("the configuration is wrong:\n" + "\n".join(lines)) from error


def _unfold(value: Any) -> Any:
    """A section as its fields, those alone that were set; anything else as it is, for the validation to judge."""
    return value.model_dump(exclude_unset=True) if isinstance(value, Record) else value
