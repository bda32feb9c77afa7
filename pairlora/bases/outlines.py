"""A base's denoiser without its weights: which layers it has, and how wide they are."""

import json
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
    try:
        folder = _find_folder(locate_base(config) if config and Path(place).is_file() else place, revision)
        index = _read_json(folder / "model_index.json")
        if (kind := index.get("_class_name")) not in ARCHITECTURES:
            return None
        base_class: Any = resolve_name(ARCHITECTURES[kind])
        settings = _read_json(folder / base_class.denoiser_name / "config.json")
    except (OSError, ValueError):
        return None
    _, class_name = index[base_class.denoiser_name]
    with device("meta"):
        return Outline(getattr(diffusers, class_name).from_config(settings), base_class.family)


def _find_folder(place: str, revision: str | None) -> Path:
    """The folder of a base, or what this machine has of a hub id; OSError or ValueError where it has nothing."""
    from huggingface_hub import snapshot_download

    if Path(place).is_dir():
        return Path(place)
    return Path(snapshot_download(place, revision=revision, allow_patterns=["*.json"], local_files_only=True))


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
