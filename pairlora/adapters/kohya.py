"""The kohya key style, which ComfyUI, A1111, Forge and InvokeAI read: one name a layer, alpha as a tensor of its own.

SDXL's layers are called as in Stability AI's own code (SGM), those of SD 1.5 as in diffusers: readers of the one know no
names of the other, so a file never mixes them.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from pairlora.errors import AdapterFileError

PREFIX = "lora_unet_"
FAMILIES = ("sdxl", "sd15")
"""Families of bases that the kohya file is for; tools read FLUX in diffusers' own names."""
PLACE = re.compile(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.attentions\.(\d+)\.(.+)")


def name_layer(layer: str, family: str, blocks: int) -> str:
    """The kohya name of a layer: 'lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q' (SDXL).

    `blocks` is the UNet's `layers_per_block`. SGM counts residual layers through all levels: each level of the way down has
    `blocks` of them and one that halves the size, each level of the way up `blocks + 1`.
    """
    if family == "sdxl":
        layer = _name_in_sgm(layer, blocks + 1)
    elif family != "sd15":
        raise AdapterFileError(
            f"there are no kohya names for {family or 'this base'}; the families that have some are {', '.join(FAMILIES)}"
        )
    return PREFIX + layer.replace(".", "_")


def _name_in_sgm(layer: str, level: int) -> str:
    if (found := PLACE.fullmatch(layer)) is None:
        raise AdapterFileError(f"{layer} lies in no attention of a UNet, so it has no SGM name")
    way, block, attention, rest = found.groups()
    if way is None:
        return f"middle_block.1.{rest}"
    count = level * int(block) + int(attention)
    return f"input_blocks.{count + 1}.1.{rest}" if way == "down" else f"output_blocks.{count}.1.{rest}"


def lay_out_for_kohya(
    matrices: Mapping[str, tuple[Tensor, Tensor]], family: str, blocks: int, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The tensors of a kohya file by key; alpha is the rank, so that the scale is 1."""
    tensors = {}
    for layer, (a, b) in matrices.items():
        name = name_layer(layer, family, blocks)
        tensors[f"{name}.lora_down.weight"] = a.to(dtype)
        tensors[f"{name}.lora_up.weight"] = b.to(dtype)
        tensors[f"{name}.alpha"] = torch.tensor(float(len(a)), dtype=dtype)
    return tensors


def name_layers(layers: Iterable[str], family: str, blocks: int) -> dict[str, str]:
    """Layers by their kohya names."""
    return {name_layer(layer, family, blocks): layer for layer in layers}
