"""Styles without manifest and store: learn one from a pair of pictures, draw with one or several, save and load."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from pairlora.adapters.files import Matrices, decode_adapter, encode_adapter
from pairlora.adapters.routing import Role
from pairlora.adapters.stacking import styles_attached
from pairlora.bases.interface import Base
from pairlora.config import PictureLimits, SampleConfig, TrainConfig, read_section
from pairlora.errors import AdapterFileError, ConfigError
from pairlora.execution.progress import Listener, ignore
from pairlora.identity import digest_record
from pairlora.images import fit_pair, read_picture
from pairlora.presets import HUB_IDS, PRESETS
from pairlora.records import Record
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm
from pairlora.training.packs import TrainingPair, train_pack

Picture = str | os.PathLike[str] | Image.Image
Config = TypeVar("Config", bound=Record)


@dataclass(frozen=True, eq=False)
class Style:
    """A style adapter: `{layer: (A (rank, in), B (out, rank))}`, and how a prompt reads in its style, with {prompt} in it."""

    matrices: Matrices = field(repr=False)
    template: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .safetensors file that `load_lora_weights` of diffusers reads too; its header keeps the template."""
        Path(path).write_bytes(encode_adapter(self.matrices, {"style_template": self.template}, _name_denoiser(self.matrices)))

    @classmethod
    def load(cls, path: str | os.PathLike[str], template: str | None = None) -> "Style":
        """Read a file. `template` is needed where its header has none; AdapterFileError where it is no adapter."""
        matrices, facts = decode_adapter(Path(path).read_bytes())
        if (said := template or facts.get("style_template")) is None:
            raise AdapterFileError(f"{path} does not say how prompts read in its style; give template='{{prompt}}, in …'")
        return cls(matrices, _check_template(said))


def learn_style(
    base: Base, content: Picture, style: Picture, *, prompt: str, template: str, listener: Listener = ignore, **settings: Any
) -> Style:
    """Learn what changed from `content` to `style`, two pictures of one scene that `prompt` describes.

    `template` says how a prompt reads in the style: "{prompt}, in ink". `settings` are fields of `TrainConfig` over the preset of the
    base. Raises PictureError, ConfigError, RankError or DivergedError.
    """
    train = read_settings(base, "train", TrainConfig, settings)
    fitted = fit_pair(_open_picture(content), _open_picture(style), train.resolution)
    stream = digest_record({"pictures": [sha256(one.tobytes()).hexdigest() for one in fitted], "prompt": prompt, "template": template})
    styled = _check_template(template).replace("{prompt}", prompt)
    (trained,) = train_pack(base, [TrainingPair(stream, *fitted, prompt, styled)], train, listener)
    if trained.error is not None:
        raise trained.error
    return Style(trained.matrices[Role.STYLE], template)


def draw(
    base: Base, prompts: str | Sequence[str], styles: Mapping[Style, float] | None = None, *, seeds: Sequence[int] = (0,), **settings: Any
) -> list[Image.Image]:
    """Draw every prompt with every seed, prompt by prompt, led by styles at their strengths.

    A strength is counted as the guidance scale is, usually 0 to that; several styles add up, and a negative strength leads away. Styles
    may have different bases A, ranks and layers. `settings` are fields of `SampleConfig` over the preset of the base.
    """
    sample = read_settings(base, "sample", SampleConfig, settings)
    chosen = {style: strength for style, strength in (styles or {}).items() if strength}
    requests = [
        ImageRequest(prompt, seed, _name_terms(prompt, chosen))
        for prompt in ([prompts] if isinstance(prompts, str) else prompts)
        for seed in seeds
    ]
    if not chosen:
        return Sampler(base, None, sample).draw(requests)
    with styles_attached(base.denoiser, [style.matrices for style in chosen]) as adapters:
        return Sampler(base, adapters, sample).draw(requests)


def _name_terms(prompt: str, styles: Mapping[Style, float]) -> tuple[StyleTerm, ...]:
    return tuple(StyleTerm(slot, one.template.replace("{prompt}", prompt), strength) for slot, (one, strength) in enumerate(styles.items()))


def _name_denoiser(matrices: Matrices) -> str:
    """The denoiser's name in its pipeline, the prefix of layers in files: only transformers have blocks of that name at their root."""
    return "transformer" if any(layer.startswith(("transformer_blocks.", "single_transformer_blocks.")) for layer in matrices) else "unet"


def _open_picture(picture: Picture) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    return read_picture(os.fspath(picture), PictureLimits()).image


def _check_template(template: str) -> str:
    if "{prompt}" not in template:
        raise ConfigError(f"template = {template!r} has no {{prompt}} in it; write a phrase like '{{prompt}}, in ink'")
    return template


def read_settings(base: Base, section: str, kind: type[Config], settings: Mapping[str, Any]) -> Config:
    """Settings over the preset of the base; ConfigError names every wrong one."""
    return read_section(kind, PRESETS.get(HUB_IDS.get(base.name, base.name), {}).get(section, {}) | dict(settings), section)
