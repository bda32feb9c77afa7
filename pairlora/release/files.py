"""The files of a release: the adapter in every layout that its base's tools read, and what lies beside it."""

import json
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from pairlora.adapters.files import describe_for_peft, lay_out_for_diffusers, serialise
from pairlora.adapters.kohya import FAMILIES, lay_out_for_kohya
from pairlora.adapters.masters import StoredAdapter, read_adapter
from pairlora.adapters.routing import Role
from pairlora.release.card import describe_for_tools, write_card
from pairlora.release.contents import Release
from pairlora.release.headers import describe_file, hash_tensors
from pairlora.store.run_store import RunStore

Precision = Literal["float32", "float16"]
DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "float16": torch.float16}
DIFFUSERS_NAME, KOHYA_NAME = "style.safetensors", "style.kohya.safetensors"


def list_files(
    store: RunStore, release: Release, precision: Precision = "float32", *, content: bool = False
) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of a release, its card last. Raises CorruptObjectError where the adapter is damaged.

    `content` asks for the content adapter as well, which only another training has a use for.
    """
    style, other = (read_adapter(store, release.record, role) for role in (Role.STYLE, Role.CONTENT))
    yield DIFFUSERS_NAME, encode_for_diffusers(style, release, precision)
    if has_kohya_file := style.facts.get("family") in FAMILIES:
        yield KOHYA_NAME, encode_for_kohya(style, release, precision)
    if content:
        yield "content.safetensors", encode_for_diffusers(other, release, precision)
    tools = (json.dumps(describe_for_tools(release), indent=2, ensure_ascii=False) + "\n").encode()
    for stem in ("style", "style.kohya") if has_kohya_file else ("style",):
        if release.preview:
            yield f"{stem}.png", release.preview
        yield f"{stem}.json", tools
    residual = measure_overlap(style, other, DTYPES[precision])
    yield "README.md", write_card(release, describe_files(has_kohya_file, precision, residual)).encode()


def encode_for_diffusers(adapter: StoredAdapter, release: Release, precision: Precision) -> bytes:
    """The file that diffusers' `load_lora_weights` and PEFT read; alpha stands in its header."""
    tensors = lay_out_for_diffusers(adapter.matrices, adapter.denoiser, DTYPES[precision])
    return serialise(tensors, describe_for_peft(adapter.matrices, adapter.denoiser) | _describe(adapter, release, tensors, is_kohya=False))


def encode_for_kohya(adapter: StoredAdapter, release: Release, precision: Precision) -> bytes:
    """The file that ComfyUI, A1111, Forge and InvokeAI read; alpha stands in tensors of its own."""
    tensors = lay_out_for_kohya(adapter.matrices, adapter.facts["family"], int(adapter.facts["blocks"]), DTYPES[precision])
    return serialise(tensors, {"format": "pt"} | _describe(adapter, release, tensors, is_kohya=True))


def _describe(adapter: StoredAdapter, release: Release, tensors: dict[str, Tensor], *, is_kohya: bool) -> dict[str, str]:
    rank = len(next(iter(adapter.matrices.values()))[0])
    return describe_file(release, rank=rank, facts=adapter.facts, hash_sha256=hash_tensors(tensors), is_kohya=is_kohya)


def measure_overlap(style: StoredAdapter, content: StoredAdapter, dtype: torch.dtype) -> float:
    """The largest entry of `A_c A_sᵀ` over all layers, as it is in files of this precision: 0 where they are orthogonal."""
    pairs = {id(a): (a, content.matrices[layer][0]) for layer, (a, _) in style.matrices.items()}
    rounded = ((a.to(dtype).double(), other.to(dtype).double()) for a, other in pairs.values())
    return max(float((other @ a.T).abs().max()) for a, other in rounded)


def describe_files(has_kohya_file: bool, precision: Precision, residual: float) -> str:
    """What each file is for, and how exactly it holds the method's orthogonality."""
    lines = [f"- `{DIFFUSERS_NAME}`: diffusers, `pipeline.load_lora_weights(folder, weight_name='{DIFFUSERS_NAME}')`"]
    if has_kohya_file:
        lines.append(f"- `{KOHYA_NAME}`: ComfyUI, A1111, Forge, InvokeAI")
    return "\n".join([*lines, f"- {precision}; largest entry of `A_c A_sᵀ` of content and style: {residual:.1e}"])
