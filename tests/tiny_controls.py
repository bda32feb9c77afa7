"""Random ControlNets of diffusers' own classes beside the tiny bases, every weight of which is heard."""

from typing import Any

import torch
from diffusers import ControlNetModel, FluxControlNetModel

LOUD = 0.2


def make_control(base: Any) -> Any:
    """The ControlNet of a base, whose layers that begin at zero are random: an untrained one of diffusers says nothing."""
    generator = torch.Generator().manual_seed(11)
    if base.family == "flux":
        heads = {"attention_head_dim": base.denoiser.config.attention_head_dim, "num_attention_heads": 2}
        net: Any = FluxControlNetModel.from_transformer(base.denoiser, num_layers=1, num_single_layers=1, **heads)
    else:
        # one halving of the hint for each of the autoencoder's
        channels = (4,) * len(base.pipeline.vae.config.block_out_channels)
        net = ControlNetModel.from_unet(base.denoiser, conditioning_embedding_out_channels=channels)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.copy_(LOUD * torch.randn(parameter.shape, generator=generator))
    return net.to(base.denoiser.dtype).requires_grad_(False).eval()
