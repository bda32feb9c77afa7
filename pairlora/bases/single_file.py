"""Checkpoints in one safetensors file, as studios have them: weights alone, with configs and lacking parts from a folder."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pairlora.errors import BaseModelError

PARTS = {
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.t5xxl."),
}
"""Beginnings of the names that a part's weights have in single files."""

REMEDY = "let base.config be the model that it descends from"


def find_configs(config: str, place: str, revision: str | None) -> str:
    """The folder of a config: `place` itself, or the small files of a hub id, fetched once. BaseModelError where it cannot be had."""
    if Path(place).is_dir():
        return place
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(place, revision=revision, allow_patterns=["*.json", "*.txt", "*.model"])
    except (OSError, ValueError) as error:
        remedy = "fetch it once where there is a network, or set base.config to a folder"
        raise BaseModelError(
            f"base.config '{config}' is no folder and cannot be fetched; {remedy}: {str(error).splitlines()[0]}"
        ) from error


def load_single_file(pipeline_class: Any, path: Path, folder: str, settings: Mapping[str, Any]) -> Any:
    """The pipeline of a file, with configs and tokenizers from a folder, and from there the parts that the file lacks.

    Raises BaseModelError where a part's weights are in neither; only safetensors are read.
    """
    from diffusers.loaders.single_file_utils import SingleFileComponentError

    parts = _load_lacking_parts(pipeline_class, path, folder, settings["dtype"])
    try:
        pipeline = pipeline_class.from_single_file(str(path), config=folder, local_files_only=True, **settings, **parts)
    except (SingleFileComponentError, KeyError, NotImplementedError, RuntimeError, ValueError) as error:  # diffusers checks no names
        reason = str(error).splitlines()[0]
        raise BaseModelError(f"{path} does not fit the configs in {folder}; {REMEDY} ({type(error).__name__}: {reason})") from error
    for name in pipeline.components:
        _check_weights(path, name, getattr(pipeline, name))
    return pipeline


def _load_lacking_parts(pipeline_class: Any, path: Path, folder: str, dtype: Any) -> dict[str, Any]:
    """The parts of the pipeline of which a file has no weights, such as all but the transformer in FLUX's own files."""
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise BaseModelError(f"{path} is no safetensors file ({error}); copy it again") from error
    parts = {}
    for part, (library, class_name) in _list_parts(pipeline_class.load_config(folder)).items():
        if not any(name.startswith(PARTS[part]) for name in names):
            parts[part] = _load_part(getattr(importlib.import_module(library), class_name), path, folder, part, dtype)
    return parts


def _list_parts(index: Mapping[str, Any]) -> dict[str, Any]:
    """Library and class of the parts in a pipeline's index that a file may lack."""
    return {part: index[part] for part in PARTS if part in index}


def _load_part(part_class: Any, path: Path, folder: str, part: str, dtype: Any) -> Any:
    try:
        return part_class.from_pretrained(folder, subfolder=part, use_safetensors=True, dtype=dtype)
    except (OSError, ValueError) as error:
        remedy = f"let base.config be a folder with {part}/*.safetensors"
        raise BaseModelError(f"{path} has no weights of {part}, and neither has {folder}; {remedy}") from error


def _check_weights(path: Path, name: str, part: Any) -> None:
    """Refuse a part with weights that the file did not have: they would be nothing, and no error would say so."""
    lacking = [weight for weight, tensor in part.named_parameters() if tensor.is_meta] if hasattr(part, "named_parameters") else []
    if lacking:
        raise BaseModelError(f"{path} lacks {len(lacking)} weights of {name}, {lacking[0]} among them; {REMEDY}")
