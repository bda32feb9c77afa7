"""Find a base model by name: the embedded one, a named one with a pinned revision, a folder, or a hub id."""

import hashlib
import json
from functools import cache
from pathlib import Path

from pairlora.config import HUB_IDS
from pairlora.errors import BaseModelError

EMBEDDED = Path(__file__).with_name("embedded")
NAMED = {name: hub_id for hub_id, name in HUB_IDS.items()}

CREDITS = {
    "embedded": (
        "The embedded base was trained on Fluent Emoji (Microsoft, MIT), Noto Emoji (Google, Apache-2.0) and "
        "Twemoji (Twitter and contributors, CC-BY 4.0; rendered, recoloured and filtered).",
    )
}
"""What must be said of a base wherever its pictures are shown."""


def locate_base(name: str) -> str:
    """The folder or hub id that a base's name stands for."""
    if name == "embedded":
        if not (EMBEDDED / "model_index.json").exists():
            raise BaseModelError(f"the embedded base is not in {EMBEDDED}; install pairlora from its wheel or rebuild it with `make base`")
        return str(EMBEDDED)
    return NAMED.get(name, name)


@cache
def digest_base(name: str, revision: str | None) -> str:
    """The identity of a base: a digest over the files of a folder, or hub id and revision as they stand."""
    place = Path(locate_base(name))
    if not place.is_dir():
        if revision is None:
            raise BaseModelError(f"base '{name}' is no folder, and a hub id needs a revision; set base.revision to a commit or tag")
        return hashlib.sha256(json.dumps([str(place), revision]).encode()).hexdigest()
    hasher = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        if path.suffix in {".safetensors", ".json", ".txt"} and "clip" not in path.relative_to(place).parts:
            hasher.update(path.relative_to(place).as_posix().encode())
            with path.open("rb") as stream:
                hasher.update(hashlib.file_digest(stream, "sha256").digest())
    return hasher.hexdigest()


def load_base(name: str = "embedded", revision: str | None = None, *, device: str = "cpu", dtype: str = "float32"):
    """Load a base model, frozen and in evaluation mode.

    `name` is 'embedded', 'sdxl', a folder in diffusers' layout, or a hub id. Raises BaseModelError where there is
    no such model or where no architecture here knows it.
    """
    import torch
    from diffusers import DiffusionPipeline, StableDiffusionXLPipeline

    from pairlora.bases.sdxl import SDXLBase

    place = locate_base(name)
    try:
        pipeline = DiffusionPipeline.from_pretrained(place, revision=revision, use_safetensors=True, dtype=getattr(torch, dtype))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"base '{name}' cannot be loaded from {place}: {str(error).splitlines()[0]}") from error
    if not isinstance(pipeline, StableDiffusionXLPipeline):
        raise BaseModelError(f"base '{name}' is a {type(pipeline).__name__}; SDXL models are supported so far")
    return SDXLBase(pipeline, name=name, digest=digest_base(name, revision), device=device)
