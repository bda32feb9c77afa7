"""ControlNets by diffusers' own classes: found by folder or hub id, frozen, and checked against the base that they hold."""

from functools import lru_cache
from typing import Any

import torch
from safetensors import SafetensorError

from pairlora.bases.interface import Base
from pairlora.errors import BaseModelError

CLASSES = {"sdxl": "ControlNetModel", "sd15": "ControlNetModel", "flux": "FluxControlNetModel"}
SHARED = {
    "ControlNetModel": ("block_out_channels", "cross_attention_dim", "layers_per_block", "addition_embed_type"),
    "FluxControlNetModel": ("in_channels", "attention_head_dim", "num_attention_heads", "joint_attention_dim", "pooled_projection_dim"),
}
"""Settings that a net has in common with the denoiser whose blocks it adds to."""


def load_control(base: Base, name: str, revision: str | None = None) -> Any:
    """The ControlNet of a folder or hub id on the base's device, frozen. BaseModelError where there is none, or it is another base's."""
    kind = CLASSES[base.family]
    net = _load(kind, name, revision, str(base.device), base.denoiser.dtype)
    for setting in SHARED[kind]:
        own, wanted = net.config.get(setting), base.denoiser.config.get(setting)
        if own != wanted:
            raise BaseModelError(
                f"the ControlNet '{name}' was made for another base than '{base.name}' ({setting} is {own}, not {wanted}); "
                "set entry.control.name to one of this base, or entry.way to noise"
            )
    return net


@lru_cache(maxsize=1)  # a worker does many shards with one net
def _load(kind: str, name: str, revision: str | None, device: str, dtype: torch.dtype) -> Any:
    import diffusers

    net_class: Any = getattr(diffusers, kind)
    try:
        found = net_class.load_config(name, revision=revision).get("_class_name")
        if found != kind:
            raise BaseModelError(f"'{name}' is a {found}; the base takes a {kind}: set entry.control.name to one")
        net = net_class.from_pretrained(name, revision=revision, use_safetensors=True, torch_dtype=dtype)
    except (OSError, ValueError, SafetensorError) as error:
        raise BaseModelError(f"the ControlNet '{name}' cannot be loaded: {str(error).splitlines()[0]}") from error
    if getattr(net, "union", False) or getattr(net, "input_hint_block", None) is not None:
        raise BaseModelError(
            f"'{name}' is a ControlNet of several modes, or of its own kind of hint; set entry.control.name to one for edges"
        )
    return net.requires_grad_(False).eval().to(device)
