"""Adapter files that stock tools load: diffusers/PEFT keys, alpha = rank in the header, the same bytes every time."""

import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from pairlora.errors import AdapterFileError

DENOISERS = ("unet", "transformer")
Matrices = dict[str, tuple[Tensor, Tensor]]


def encode_adapter(matrices: Mapping[str, tuple[Tensor, Tensor]], facts: Mapping[str, str], denoiser: str = "unet") -> bytes:
    """A safetensors file of `{layer: (A (rank, in), B (out, rank))}`, float32, that `load_lora_weights` reads.

    `denoiser` is the denoiser's name in its pipeline, the prefix of all layers. `facts` go into the header under
    `pairlora.`. Layers and header keys are sorted and no time is written, so equal adapters give equal bytes.
    """
    rank = next(iter(matrices.values()))[0].shape[0]
    peft = {"r": rank, "lora_alpha": rank, "target_modules": sorted(matrices), "lora_dropout": 0.0, "bias": "none", "use_dora": False}
    header = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps({f"{denoiser}.{key}": value for key, value in peft.items()}, sort_keys=True),
        **{f"pairlora.{key}": value for key, value in facts.items()},
    }
    tensors = {}
    for layer, (a, b) in matrices.items():
        tensors[f"{denoiser}.{layer}.lora_A.weight"] = a
        tensors[f"{denoiser}.{layer}.lora_B.weight"] = b
    return _serialise(tensors, header)


def _serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The safetensors layout with a sorted header; the reference writer leaves the order of metadata to a hash map."""
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    parts, offset = [], 0
    for name, tensor in sorted(tensors.items()):
        data = tensor.detach().cpu().to(torch.float32).contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + b"".join(parts)


def decode_adapter(data: bytes) -> tuple[Matrices, dict[str, str]]:
    """The matrices by layer and the facts of a file that `encode_adapter` wrote; else AdapterFileError."""
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise AdapterFileError(f"not a safetensors file: {error}") from error
    matrices: Matrices = {}
    for name in sorted(tensors):
        if not name.endswith(".lora_A.weight"):
            continue
        layer = name.removesuffix(".lora_A.weight")
        if (other := tensors.get(f"{layer}.lora_B.weight")) is None:
            raise AdapterFileError(f"{layer} has a lora_A and no lora_B")
        matrices[_strip_denoiser(layer)] = (tensors[name], other)
    if not matrices:
        raise AdapterFileError("the file holds no lora_A / lora_B pairs; kohya files are not read yet")
    facts = {key.removeprefix("pairlora."): value for key, value in metadata.items() if key.startswith("pairlora.")}
    return matrices, facts


def _strip_denoiser(layer: str) -> str:
    """A layer's name as the denoiser knows it."""
    denoiser, _, rest = layer.partition(".")
    return rest if denoiser in DENOISERS else layer
