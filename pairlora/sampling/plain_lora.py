"""Pictures as tools without style guidance draw them: the style adapter as a plain LoRA, plain classifier-free guidance.

Every row of a step, the unconditional one too, sees the adapter, from the first step on and at a weight that scales its
update: `W = W0 + w B A`. This is what an artist sees who loads the published file in ComfyUI or A1111.
"""

from typing import Any

from torch import Tensor

from pairlora.adapters.dual import DualAdapters, Role, Segment
from pairlora.adapters.files import Matrices
from pairlora.bases.interface import Base, Conditions, Control, Size
from pairlora.config import SampleConfig
from pairlora.sampling.sampler import Sampler
from pairlora.sampling.schedules import Schedule


class PlainLoraBase:
    """A base whose every row sees the style adapter of slot 0; for all else it is the base itself."""

    def __init__(self, base: Base, adapters: DualAdapters):
        self._base = base
        self._adapters = adapters

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)

    def predict(self, latents: Tensor, timesteps: Tensor, conditions: Conditions, size: Size, control: Control | None = None) -> Tensor:
        """One forward of the denoiser with the adapter on all rows."""
        with self._adapters.routed([Segment(0, len(latents), Role.STYLE, (0,))]):
            return self._base.predict(latents, timesteps, conditions, size, control)


def scale_style(style: Matrices, weight: float) -> Matrices:
    """The adapter whose update is `weight` times as large: A as it is, B scaled."""
    return {layer: (a, weight * b) for layer, (a, b) in style.items()}


def make_plain_sampler(base: Base, adapters: DualAdapters, sample: SampleConfig, schedule: Schedule | None = None) -> Sampler:
    """A sampler without style guidance on the adapter that is loaded in slot 0, already scaled."""
    plain: Any = PlainLoraBase(base, adapters)
    return Sampler(plain, None, sample, schedule=schedule)
