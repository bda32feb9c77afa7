"""A base's denoiser without its weights: which layers it has, and how wide they are."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from torch import device, nn

from pairlora.bases.loading import ARCHITECTURES, locate_base


@dataclass(frozen=True)
class Outline:
    """The denoiser of a base on the meta device, and whose adapter files are for it."""

    denoiser: nn.Module
    family: str


@cache
def outline_base(name: str, revision: str | None, config: str | None) -> Outline | None:
    """The outline of a base as `load_base` would find it; null where its configuration is not on this machine. Asks no network."""
    import diffusers

    place = locate_base(name)
    source = locate_base(config) if config and Path(place).is_file() else place
    told: dict[str, Any] = {"revision": revision, "local_files_only": True}
    try:
        index: Any = diffusers.DiffusionPipeline.load_config(source, **told)
        if (kind := index.get("_class_name")) not in ARCHITECTURES:
            return None
        base_class: Any = resolve_name(ARCHITECTURES[kind])
        _, class_name = index[base_class.denoiser_name]
        denoiser_class: Any = getattr(diffusers, class_name)
        settings = denoiser_class.load_config(source, subfolder=base_class.denoiser_name, **told)
    except OSError:
        return None
    with device("meta"):
        return Outline(denoiser_class.from_config(settings), base_class.family)
