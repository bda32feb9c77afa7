"""Find a base model by name: the embedded one, a named one with a pinned revision, a folder, a single file, or a hub id."""

import hashlib
import json
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pairlora.errors import BaseModelError
from pairlora.presets import HUB_IDS

EMBEDDED = Path(__file__).with_name("embedded")
NAMED = {name: hub_id for hub_id, name in HUB_IDS.items()}

ARCHITECTURES = {
    "StableDiffusionXLPipeline": "pairlora.bases.sdxl:SDXLBase",
    "StableDiffusionPipeline": "pairlora.bases.sd15:SD15Base",
    "FluxPipeline": "pairlora.bases.flux:FluxBase",
}
"""The base class of each pipeline class, as names: whoever only needs a digest imports no torch."""

CREDITS = {
    "embedded": (
        "The embedded base was trained on Fluent Emoji (Microsoft, MIT), Noto Emoji (Google, Apache-2.0) and "
        "Twemoji (Twitter and contributors, CC-BY 4.0; rendered, recoloured and filtered).",
    )
}
"""What must be said of a base wherever its pictures are shown."""


def locate_base(name: str) -> str:
    """The folder, file or hub id that a base's name stands for."""
    if name == "embedded":
        if not (EMBEDDED / "model_index.json").exists():
            raise BaseModelError(f"the embedded base is not in {EMBEDDED}; install pairlora from its wheel or rebuild it with `make base`")
        return str(EMBEDDED)
    return NAMED.get(name, name)


@cache
def digest_base(name: str, revision: str | None, config: str | None = None) -> str:
    """The identity of a base: a digest over the files of a folder, over a single file and its config, or of hub id and revision."""
    place = Path(locate_base(name))
    if place.is_file():
        return _digest_record([_digest_file(place).hex(), digest_base(_require_config(name, config), revision)])
    return digest_model(str(place), revision, "base")


@cache
def digest_model(name: str, revision: str | None, section: str) -> str:
    """The identity of a model: a digest over the files of a folder, or of hub id and revision, which `section` of the settings names."""
    place = Path(name)
    if not place.is_dir():
        if revision is None:
            what = "base" if section == "base" else "ControlNet"
            raise BaseModelError(
                f"{what} '{name}' is no folder and no file, and a hub id needs a revision; set {section}.revision to a commit or tag"
            )
        return _digest_record([str(place), revision])
    hasher = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        if path.suffix in {".safetensors", ".json", ".txt"} and "clip" not in path.relative_to(place).parts:
            hasher.update(path.relative_to(place).as_posix().encode())
            hasher.update(_digest_file(path))
    return hasher.hexdigest()


def _digest_file(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _digest_record(record: list[str]) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _require_config(name: str, config: str | None) -> str:
    """What a single file needs beside it, since it holds weights alone. BaseModelError names the remedy."""
    if Path(name).suffix != ".safetensors":
        raise BaseModelError(f"base '{name}' is no .safetensors file; nothing else is read, since a pickle runs what is in it")
    if config is None:
        raise BaseModelError(
            f"base '{name}' is a single file, which lacks configs and tokenizers; set base.config to the model that it descends "
            f"from: {', '.join(NAMED)}, a folder in diffusers' layout, or a hub id with base.revision"
        )
    return config


def load_base(
    name: str = "embedded", revision: str | None = None, config: str | None = None, *, device: str = "cpu", dtype: str = "float32"
) -> Any:
    """Load a base model, frozen and in evaluation mode.

    `name` is 'embedded', a named base, a folder in diffusers' layout, a hub id, or a single .safetensors file in its
    authors' layout; a file takes its configs and tokenizers from `config`, a named base, a folder or a hub id.
    Raises BaseModelError where there is no such model or where no architecture here knows it.
    """
    import torch

    from pairlora.bases.single_file import find_configs

    place = locate_base(name)
    digest = digest_base(name, revision, config)
    if Path(place).is_file():
        config = _require_config(name, config)
        source = find_configs(config, locate_base(config), revision)
    else:
        source = place
    kind = _read_pipeline_class(name, source, revision)
    base_class: Any = resolve_name(ARCHITECTURES[kind])
    pipeline = _load_pipeline(name, kind, place, source, base_class.left_out | {"revision": revision, "dtype": getattr(torch, dtype)})
    return base_class(pipeline, name=name, digest=digest, device=device)


def _read_pipeline_class(name: str, source: str, revision: str | None) -> str:
    """The pipeline class that a model's index names, before any weights are read."""
    from diffusers import DiffusionPipeline

    try:
        index: Any = DiffusionPipeline.load_config(source, revision=revision)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"base '{name}' cannot be loaded from {source}: {str(error).splitlines()[0]}") from error
    kind = str(index.get("_class_name"))
    if kind not in ARCHITECTURES:
        raise BaseModelError(f"base '{name}' is a {kind}; models of {', '.join(ARCHITECTURES)} are supported so far")
    return kind


def _load_pipeline(name: str, kind: str, place: str, source: str, settings: dict[str, Any]) -> Any:
    """The stock pipeline of a folder, hub id or single file; only safetensors are read."""
    import diffusers
    from safetensors import SafetensorError

    from pairlora.bases.single_file import load_single_file

    pipeline_class: Any = getattr(diffusers, kind)
    try:
        if Path(place).is_file():
            return load_single_file(pipeline_class, Path(place), source, settings)
        return pipeline_class.from_pretrained(place, use_safetensors=True, **settings)
    except (OSError, ValueError, SafetensorError) as error:
        raise BaseModelError(f"base '{name}' cannot be loaded from {place}: {str(error).splitlines()[0]}") from error
