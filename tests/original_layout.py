"""Write a pipeline as one checkpoint in the original layout (SGM, LDM), which is what studios have on disk.

The inverse of what diffusers reads, for UNets and autoencoders without attention of its own, as the tiny ones are.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

UNET_PARTS = {
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
RESNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OPEN_CLIP_PARTS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn": "attn",
}


def replace_parts(name: str, parts: dict[str, str]) -> str:
    """The name with each part replaced that stands in it whole."""
    for ours, theirs in parts.items():
        name = re.sub(rf"(^|\.){re.escape(ours)}(?=\.|$)", rf"\g<1>{theirs}", name)
    return name


def name_unet_block(name: str, per_block: int, attended: set[str]) -> str:
    """The original name of a weight of a down or up block: blocks are counted through, each with a resnet, an attention, a resampler."""
    side, block, kind, index, rest = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name).groups()  # type: ignore[union-attr]
    down = side == "down"
    place = int(block) * (per_block + 1) + (1 if down else 0) + (int(index) if kind in ("resnets", "attentions") else per_block)
    blocks = "input_blocks" if down else "output_blocks"
    if kind == "resnets":
        return f"{blocks}.{place}.0.{replace_parts(rest, RESNET_PARTS)}"
    if kind == "attentions":
        return f"{blocks}.{place}.1.{rest}"
    resampler = "0.op" if down else f"{2 if f'up_blocks.{block}' in attended else 1}.conv"
    return f"{blocks}.{place}.{resampler}.{rest.removeprefix('conv.')}"


def convert_unet(unet: Any) -> dict[str, Tensor]:
    """The weights of a denoiser by their original names."""
    weights, per_block = unet.state_dict(), unet.config.layers_per_block
    attended = {name.partition(".attentions")[0] for name in weights if ".attentions." in name}
    converted = {}
    for name, weight in weights.items():
        if name.startswith(("down_blocks", "up_blocks")):
            original = name_unet_block(name, per_block, attended)
        else:
            original = replace_parts(name, UNET_PARTS)
            if original.startswith(("middle_block.0", "middle_block.2")):
                original = replace_parts(original, RESNET_PARTS)
        converted[f"model.diffusion_model.{original}"] = weight
    return converted


def convert_autoencoder(vae: Any) -> dict[str, Tensor]:
    """The weights of an autoencoder without attention by their original names; the decoder's blocks are counted from its end."""
    last = len(vae.config.up_block_types) - 1

    def name_weight(name: str) -> str:
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = re.sub(r"mid_block\.resnets\.(\d+)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
        name = re.sub(r"up_blocks\.(\d+)", lambda found: f"up.{last - int(found[1])}", name.replace("down_blocks", "down"))
        return re.sub(r"(down|up)samplers\.0", r"\1sample", name.replace("resnets", "block"))

    return {f"first_stage_model.{name_weight(name)}": weight for name, weight in vae.state_dict().items()}


def convert_clip(encoder: Any, prefix: str) -> dict[str, Tensor]:
    """The weights of a CLIP text encoder below `prefix`; transformers wrote them below `text_model` before its version 5.6."""
    return {f"{prefix}.text_model.{name.removeprefix('text_model.')}": weight for name, weight in encoder.state_dict().items()}


def convert_open_clip(encoder: Any, prefix: str) -> dict[str, Tensor]:
    """The weights of a text encoder with projection in OpenCLIP's names: queries, keys and values in one matrix."""
    weights = {name.removeprefix("text_model."): weight for name, weight in encoder.state_dict().items()}
    converted = {f"{prefix}.text_projection": weights.pop("text_projection.weight").T}
    for name in list(weights):
        if "q_proj" in name:
            fused = torch.cat([weights.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")])
            layer, _, kind = name.rpartition(".q_proj.")
            converted[f"{prefix}.{replace_parts(layer, OPEN_CLIP_PARTS)}.in_proj_{kind}"] = fused
    return converted | {f"{prefix}.{replace_parts(name, OPEN_CLIP_PARTS)}": weight for name, weight in weights.items()}


def write_single_file(pipeline: Any, path: Path) -> None:
    """Write an SD 1.5 or SDXL pipeline to `path` as a safetensors checkpoint in the original layout."""
    tensors = convert_unet(pipeline.unet) | convert_autoencoder(pipeline.vae)
    if hasattr(pipeline, "text_encoder_2"):
        tensors |= convert_clip(pipeline.text_encoder, "conditioner.embedders.0.transformer")
        tensors |= convert_open_clip(pipeline.text_encoder_2, "conditioner.embedders.1.model")
    else:
        tensors |= convert_clip(pipeline.text_encoder, "cond_stage_model.transformer")
    save_file({name: weight.contiguous() for name, weight in tensors.items()}, path)


def write_configs(pipeline: Any, folder: Path, kinds: Iterable[str] = (".safetensors", ".bin")) -> None:
    """Write what a single file lacks, configs and tokenizers, as a pipeline's folder without weights."""
    pipeline.save_pretrained(folder)
    for path in list(folder.rglob("*")):
        if path.suffix in kinds:
            path.unlink()
