"""What an adapter does to pictures that it was not trained on, where next to no noise is left for it to work on.

An adapter that has learnt a style leaves such a picture nearly as the base would; one that was trained too long changes
whatever it is shown. No encoder is asked: it is read off the denoiser.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from PIL import Image
from torch import Tensor

from pairlora.adapters.dual import DualAdapters, Role, Segment
from pairlora.bases.interface import Base, Conditions

TIMESTEPS = (25, 50)
"""Timesteps of 1000 at which it is measured: at larger ones a style has much to do, and good adapters change much too."""
DRAWS = 2
"""Draws of noise at each timestep, the same for every picture."""
SEED = 0
MOST_PICTURES = 4
"""Pictures of other subjects that are enough."""


@dataclass(frozen=True)
class Example:
    """A picture and the words for it in the pair's style."""

    picture: Image.Image
    style_prompt: str


@torch.inference_mode()
def measure_spill(base: Base, adapters: DualAdapters, style: Example, others: Sequence[Example], size: int) -> float | None:
    """`E |e_s(z_t, c) - e_0(z_t, c)|²` over `others`, divided by `E |target - e_0(z_t, c)|²` of the style picture.

    `e_s` sees the style adapter of slot 0, `e_0` is the base; pictures are brought to `size` pixels a side. 0 for an adapter whose
    B is zero; null without other pictures.
    """
    if not others:
        return None
    learnt = NoisedRows.of(base, style, size)
    error = float((learnt.target - learnt.predict(base, adapters, styled=False)).square().mean())
    shown = [NoisedRows.of(base, other, size) for other in others]
    changes = [rows.predict(base, adapters, styled=True) - rows.predict(base, adapters, styled=False) for rows in shown]
    return fmean(float(change.square().mean()) for change in changes) / error


@dataclass(frozen=True)
class NoisedRows:
    """One picture at all timesteps and draws: `noisy` and `target` (rows, channels, height, width), `timesteps` (rows,)."""

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    conditions: Conditions
    size: int

    @classmethod
    def of(cls, base: Base, example: Example, size: int) -> "NoisedRows":
        """The rows of a picture; their noise depends on `SEED` and the shape alone."""
        picture = example.picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
        clean, _ = base.encode_pictures([picture])
        noise = torch.randn((DRAWS, *clean.shape[1:]), generator=torch.Generator().manual_seed(SEED)).repeat(len(TIMESTEPS), 1, 1, 1)
        timesteps = torch.tensor([base.timesteps * one // 1000 for one in TIMESTEPS]).repeat_interleave(DRAWS).to(clean.device)
        clean, noise = clean.expand_as(noise), noise.to(clean)
        conditions = base.encode_prompts([example.style_prompt])[[0] * len(noise)]
        return cls(base.add_noise(clean, noise, timesteps), base.training_target(clean, noise, timesteps), timesteps, conditions, size)

    def predict(self, base: Base, adapters: DualAdapters, *, styled: bool) -> Tensor:
        """What the denoiser says to the rows; few enough of them for any device that drew pictures of this size."""
        with adapters.routed([Segment(0, len(self.noisy), Role.STYLE, (0,))] if styled else []):
            return base.predict(self.noisy, self.timesteps, self.conditions, self.size)
