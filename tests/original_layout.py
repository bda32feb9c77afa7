"""A tiny SD 1.5 as the single file of its authors' layout: the inverse of what diffusers does when it reads one."""

import re

from diffusers import StableDiffusionPipeline
from torch import Tensor

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
VAE_ENDS = {
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
}


def name_unet_layer(name: str, layers: int) -> str:
    """`down_blocks.1.resnets.0.conv1.weight` to `input_blocks.3.0.in_layers.2.weight`, with one layer a block."""
    for old, new in UNET_ENDS.items():
        name = re.sub(rf"^{re.escape(old)}\b", new, name)
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.", name):
        side, block, kind, index = match[1], int(match[2]), match[3], int(match[4])
        first = (layers + 1) * block + (side == "down")
        place = first + (layers if kind in ("downsamplers", "upsamplers") else index)
        part = {"resnets": "0.", "attentions": "1.", "downsamplers": "0.", "upsamplers": "2."}[kind]
        name = f"{'input' if side == 'down' else 'output'}_blocks.{place}.{part}{name[match.end() :]}"
        if kind == "downsamplers":
            name = name.replace(".conv.", ".op.")
    if "transformer_blocks" not in name:
        for old, new in RESNET.items():
            name = name.replace(f".{old}.", f".{new}.")
    return f"model.diffusion_model.{name}"


def name_vae_layer(name: str, levels: int) -> str:
    """`decoder.up_blocks.0.resnets.1.conv1.weight` to `decoder.up.2.block.1.conv1.weight`, with three levels."""
    for old, new in VAE_ENDS.items():
        name = name.replace(f".{old}.", f".{new}.")
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda match: f"up.{levels - 1 - int(match[1])}.block.", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda match: f"up.{levels - 1 - int(match[1])}.upsample.", name)
    return f"first_stage_model.{name}"


def lay_out_originally(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    """All weights of a pipeline, under the names of the original file."""
    unet, vae = pipeline.unet, pipeline.vae
    layers, levels = unet.config["layers_per_block"], len(vae.config["up_block_types"])
    named = {name_unet_layer(name, layers): tensor for name, tensor in unet.state_dict().items()}
    named |= {name_vae_layer(name, levels): tensor for name, tensor in vae.state_dict().items()}
    text = pipeline.text_encoder.state_dict()
    named |= {f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.items()}
    return {name: tensor.contiguous() for name, tensor in named.items()}
