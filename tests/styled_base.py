"""The tiny base with random style adapters, and requests in their styles."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tiny_base import SAMPLE, TRAIN

from pairlora.adapters import DualAdapters, Role
from pairlora.bases.sdxl import SDXLBase
from pairlora.config import SampleConfig
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm
from pairlora.training.packs import fresh_adapters

PROMPT, STYLED = "a flat icon of a fox", "a flat icon of a fox in ink"


@contextmanager
def random_styles(base: SDXLBase, slots: int = 2) -> Iterator[DualAdapters]:
    """Slots of random style adapters on the base."""
    with fresh_adapters(base, TRAIN, slots) as adapters:
        generator = torch.Generator().manual_seed(5)
        for parameter in adapters.parameters(Role.STYLE):
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter)
        yield adapters


def styled(strength: float, slot: int = 0, prompt: str = STYLED, seed: int = 0) -> ImageRequest:
    return ImageRequest(PROMPT, seed, (StyleTerm(slot, prompt, strength),))


def draw(base: SDXLBase, adapters: DualAdapters | None, *requests: ImageRequest, sample: SampleConfig = SAMPLE) -> torch.Tensor:
    return Sampler(base, adapters, sample).draw_latents(requests)


def draw_stock(base: SDXLBase, seed: int, scheduler=None, guidance_scale: float = 3.0, steps: int = 4) -> torch.Tensor:
    """What the stock pipeline draws, with another scheduler on the base's configuration where one is given."""
    pipeline = base.pipeline
    own, noise = pipeline.scheduler, torch.randn((1, *base.latent_shape(32)), generator=torch.Generator().manual_seed(seed))
    size = {"height": 32, "width": 32, "output_type": "latent", "return_dict": False}
    pipeline.scheduler = own if scheduler is None else scheduler.from_config(own.config)
    try:
        return pipeline(PROMPT, latents=noise.double(), num_inference_steps=steps, guidance_scale=guidance_scale, **size)[0]
    finally:
        pipeline.scheduler = own
