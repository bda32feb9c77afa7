"""A tiny SD 1.5 or SDXL as the single file of its authors' layout: the inverse of what diffusers does when it reads one."""

import re
from typing import Any

import torch
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
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
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

OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding": "token_embedding",
    "final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    ".fc1.": ".c_fc.",
    ".fc2.": ".c_proj.",
    ".self_attn.": ".attn.",
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


def name_open_clip_layers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """SDXL's second text encoder, whose authors keep queries, keys and values in one matrix and the projection transposed."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    named = {}
    for name, tensor in state.items():
        if match := re.match(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)$", name):
            parts = [state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            named[f"transformer.resblocks.{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            for old, new in OPEN_CLIP.items():
                name = name.replace(old, new)
            named[name] = tensor.T if name == "text_projection" else tensor
    return named


def lay_out_originally(pipeline: Any) -> dict[str, Tensor]:
    """All weights of a pipeline, under the names of the original file."""
    unet, vae = pipeline.unet, pipeline.vae
    layers, levels = unet.config["layers_per_block"], len(vae.config["up_block_types"])
    named = {name_unet_layer(name, layers): tensor for name, tensor in unet.state_dict().items()}
    named |= {name_vae_layer(name, levels): tensor for name, tensor in vae.state_dict().items()}
    second = getattr(pipeline, "text_encoder_2", None)
    first = "cond_stage_model" if second is None else "conditioner.embedders.0"
    text = pipeline.text_encoder.state_dict()
    named |= {f"{first}.transformer.text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.items()}
    if second is not None:
        named |= {f"conditioner.embedders.1.model.{name}": tensor for name, tensor in name_open_clip_layers(second.state_dict()).items()}
    return {name: tensor.contiguous() for name, tensor in named.items()}
