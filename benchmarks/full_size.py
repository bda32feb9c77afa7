"""One training step and one guided step of the full-size SDXL UNet with random weights in bf16: seconds and peak memory.

    python benchmarks/full_size.py [side of the latents, 32 by default]

It needs no download and 8 GB of memory, and says nothing about pictures: text and autoencoder are random numbers.
Ends with lines `FIGURE <name> <value>`.
"""

import resource
import sys
import time
from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from pairlora.adapters import Role
from pairlora.bases import load_base
from pairlora.bases.interface import Conditions
from pairlora.bases.sdxl import SDXLBase
from pairlora.config import SampleConfig, TrainConfig
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm
from pairlora.training.packs import PackExamples, PackTraining, TrainingPair, fresh_adapters

FACTOR = 8
PROMPT, STYLED = "a fox", "a fox in ink"
SDXL = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


class RandomSDXL(SDXLBase):
    """A base of SDXL's widths whose prompts and pictures are random numbers."""

    def latent_shape(self, size: int) -> tuple[int, int, int]:
        return (4, size // FACTOR, size // FACTOR)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        generator = torch.Generator().manual_seed(len(prompts))
        states = torch.randn(len(prompts), 77, 2048, generator=generator)
        pooled = torch.randn(len(prompts), 1280, generator=generator)
        return Conditions({"states": states.bfloat16(), "pooled": pooled.bfloat16()})

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        shape = (len(pictures), *self.latent_shape(pictures[0].width))
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)), torch.zeros(shape)


@torch.no_grad()
def make_denoiser() -> UNet2DConditionModel:
    """The UNet in bf16; weights repeat one block of noise, scaled by their fan-in, since drawing 2.6 G numbers takes minutes."""
    with torch.device("meta"):
        denoiser = UNet2DConditionModel(**SDXL).bfloat16()
    denoiser.to_empty(device="cpu")
    noise = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    for module in denoiser.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            scaled = (noise / module.weight[0].numel() ** 0.5).bfloat16()
            for part in module.weight.view(-1).split(len(noise)):
                part.copy_(scaled[: len(part)])
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight.fill_(1)
            module.bias.zero_()
    return denoiser


def report(name: str, started: float) -> None:
    """Seconds since `started`, and the most memory that the process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"FIGURE {name}_seconds {time.perf_counter() - started:.1f}", flush=True)
    print(f"FIGURE {name}_peak_gib {peak:.2f}", flush=True)


def main(side: int) -> None:
    started = time.perf_counter()
    pipeline = load_base("embedded").pipeline
    pipeline.register_modules(unet=make_denoiser())
    base = RandomSDXL(pipeline, name="random", digest="")
    size = side * FACTOR
    picture = Image.new("RGB", (size, size))
    pair = TrainingPair("pair", picture, picture, PROMPT, STYLED)
    train = TrainConfig(steps=1, content_steps=0, resolution=size)
    with fresh_adapters(base, train, 1) as adapters:
        report("build", started)
        trainable = sum(parameter.numel() for role in Role for parameter in adapters.parameters(role))
        print(f"FIGURE layers {len(adapters.layers)}\nFIGURE trainable_values {trainable}", flush=True)
        started = time.perf_counter()
        losses = PackTraining(PackExamples(base, [pair]), adapters, train).take_step(0)
        report("training_step", started)
        print(f"losses {losses}", flush=True)
        started = time.perf_counter()
        sample = SampleConfig(steps=1, onset=1000, size=size)
        latents = Sampler(base, adapters, sample).draw_latents([ImageRequest(PROMPT, 0, (StyleTerm(0, STYLED, 3.0),))])
        report("guided_step", started)
        print(f"latents {tuple(latents.shape)}, finite: {bool(latents.isfinite().all())}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 32)
