"""A FLUX transformer under the names of its authors' file: the inverse of what diffusers does when it reads one."""

import re

import torch
from torch import Tensor, nn

ENDS = {
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "context_embedder": "txt_in",
    "x_embedder": "img_in",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
DOUBLE = {
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
SINGLE = {
    "norm.linear": "modulation.lin",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
}
JOINED = {
    "double_blocks": {
        "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    },
    "single_blocks": {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")},
}


def lay_out_originally(transformer: nn.Module) -> dict[str, Tensor]:
    """All weights under the names of the original file; shift stands before scale in its last norm."""
    state = transformer.state_dict()
    named: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        if layer == "norm_out.linear":
            scale, shift = tensor.chunk(2)
            tensor = torch.cat([shift, scale])
        if match := re.match(r"(single_)?transformer_blocks\.(\d+)\.(.+)", layer):
            blocks, ends = ("single_blocks", SINGLE) if match[1] else ("double_blocks", DOUBLE)
            place, layer = f"{blocks}.{match[2]}", match[3]
            for new, parts in JOINED[blocks].items():
                if layer == parts[0]:
                    own = name.removesuffix(f"{layer}.{kind}")
                    named[f"{place}.{new}.{kind}"] = torch.cat([state[f"{own}{part}.{kind}"] for part in parts])
            if layer in ends:
                named[f"{place}.{ends[layer]}.{'scale' if '.norm.' in f'.{ends[layer]}' else kind}"] = tensor
        else:
            named[f"{ENDS[layer]}.{kind}"] = tensor
    return {name: tensor.contiguous() for name, tensor in named.items()}
