"""Adapter files that stock tools load: diffusers/PEFT keys, alpha = rank in the header, the same bytes every time."""

import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from pairlora.errors import AdapterFileError

DENOISERS = ("unet", "transformer")
DTYPES = {torch.float32: "F32", torch.float16: "F16"}
"""What adapters are written in. Never bfloat16: rounding A to it costs an order of magnitude of orthogonality more than float16."""
Matrices = dict[str, tuple[Tensor, Tensor]]


def encode_adapter(matrices: Mapping[str, tuple[Tensor, Tensor]], facts: Mapping[str, str], denoiser: str = "unet") -> bytes:
    """A safetensors file of `{layer: (A (rank, in), B (out, rank))}`, float32, that `load_lora_weights` reads.

    `denoiser` is the denoiser's name in its pipeline, the prefix of all layers. `facts` go into the header under
    `pairlora.`. Layers and header keys are sorted and no time is written, so equal adapters give equal bytes.
    The digest of these bytes stands in markers: another layout of the same adapter would make them look damaged.
    """
    return serialise(lay_out_for_diffusers(matrices, denoiser), describe_for_peft(matrices, denoiser) | prefix_facts(facts))


def prefix_facts(facts: Mapping[str, str]) -> dict[str, str]:
    """Facts of a training as header keys."""
    return {f"pairlora.{key}": value for key, value in facts.items()}


def describe_for_peft(matrices: Mapping[str, tuple[Tensor, Tensor]], denoiser: str) -> dict[str, str]:
    """The header in which diffusers looks for rank and alpha, which are equal."""
    rank = next(iter(matrices.values()))[0].shape[0]
    peft = {"r": rank, "lora_alpha": rank, "target_modules": sorted(matrices), "lora_dropout": 0.0, "bias": "none", "use_dora": False}
    return {
        "format": "pt",
        "lora_adapter_metadata": json.dumps({f"{denoiser}.{key}": value for key, value in peft.items()}, sort_keys=True),
    }


def lay_out_for_diffusers(
    matrices: Mapping[str, tuple[Tensor, Tensor]], denoiser: str, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The tensors of a diffusers/PEFT file by key."""
    tensors = {}
    for layer, (a, b) in matrices.items():
        tensors[f"{denoiser}.{layer}.lora_A.weight"] = a.to(dtype)
        tensors[f"{denoiser}.{layer}.lora_B.weight"] = b.to(dtype)
    return tensors


def serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The safetensors layout with a sorted header; the reference writer leaves the order of metadata to a hash map.

    All tensors are float32 or all float16, so that each begins at a multiple of its values' size.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    parts, offset = [], 0
    for name, tensor in sorted(tensors.items()):
        data = tensor.detach().cpu().contiguous().numpy().tobytes()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + b"".join(parts)


def read_tensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header texts of a safetensors file; else AdapterFileError."""
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        return tensors, json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        raise AdapterFileError(f"not a safetensors file: {error}") from error


def decode_adapter(data: bytes) -> tuple[Matrices, dict[str, str]]:
    """The matrices by layer and the facts of a file that `encode_adapter` wrote; else AdapterFileError."""
    tensors, metadata = read_tensors(data)
    matrices: Matrices = {}
    for name in sorted(tensors):
        if not name.endswith(".lora_A.weight"):
            continue
        layer = name.removesuffix(".lora_A.weight")
        if (other := tensors.get(f"{layer}.lora_B.weight")) is None:
            raise AdapterFileError(f"{layer} has a lora_A and no lora_B")
        matrices[strip_denoiser(layer)] = (tensors[name], other)
    if not matrices:
        raise AdapterFileError("the file holds no lora_A / lora_B pairs")
    return matrices, pick_facts(metadata)


def pick_facts(metadata: Mapping[str, str]) -> dict[str, str]:
    """The facts of a training among the header's texts."""
    return {key.removeprefix("pairlora."): value for key, value in metadata.items() if key.startswith("pairlora.")}


def derive_template(facts: Mapping[str, str]) -> str:
    """How prompts read in a style, with {prompt} in it, by the facts of its training; empty where they do not say."""
    content = facts.get("content_prompt", "")
    derived = facts.get("style_prompt", "").replace(content, "{prompt}") if content else ""
    template = facts.get("style_template") or derived
    return template if "{prompt}" in template else ""


def strip_denoiser(layer: str) -> str:
    """A layer's name as the denoiser knows it."""
    denoiser, _, rest = layer.partition(".")
    return rest if denoiser in DENOISERS else layer
