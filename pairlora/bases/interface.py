"""What training, sampling and evaluation ask of a base model. Each architecture is one file beside this one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """At least float32: noise levels, losses and guidance round to nonsense in half precision; the denoiser casts for itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


Size = int | tuple[int, int]
"""A picture's size in pixels: the side of a square, or (height, width)."""


def measure_sides(size: Size) -> tuple[int, int]:
    """Height and width in pixels."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class Conditions:
    """What the denoiser is told about each row: tensors by name, each (rows, ...). Only the base knows their names."""

    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self._first)

    def __getitem__(self, rows: Tensor | Sequence[int] | slice) -> "Conditions":
        index = rows if isinstance(rows, slice) else torch.as_tensor(rows, device=self.device)
        return Conditions({name: tensor[index] for name, tensor in self.tensors.items()})

    @staticmethod
    def cat(parts: Sequence["Conditions"]) -> "Conditions":
        """The rows of several conditions of one base, one after another."""
        return Conditions({name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors})

    @property
    def device(self) -> torch.device:
        return self._first.device

    @property
    def dtype(self) -> torch.dtype:
        return self._first.dtype

    @property
    def _first(self) -> Tensor:
        return next(iter(self.tensors.values()))


@dataclass(frozen=True)
class Control:
    """A ControlNet beside the denoiser, and the picture that it holds each row to: `hints` (rows, ...) as the base encodes them."""

    net: Any
    hints: Tensor
    scale: float

    @staticmethod
    def cat(parts: Sequence["Control"]) -> "Control":
        """The rows of several controls by one net, one after another."""
        return replace(parts[0], hints=torch.cat([part.hints for part in parts]))


class Base(Protocol):
    """A frozen base model. Latents are scaled as the denoiser sees them; pictures are PIL, RGB."""

    name: str
    digest: str
    family: str
    """Whose adapter files these are: 'sdxl', 'sd15' or 'flux', of whatever size."""
    denoiser: Any
    denoiser_name: str
    """The denoiser's name in adapter files: 'unet' or 'transformer'."""
    device: torch.device

    @property
    def multiple(self) -> int:
        """What both sides of a picture must be multiples of, in pixels."""
        ...

    @property
    def timesteps(self) -> int:
        """Number of training timesteps of the noise schedule."""
        ...

    def attention_projections(self) -> list[str]:
        """Names of the linear layers of the denoiser's attentions, which take adapters."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """One row a prompt; an empty one is the dropped-caption condition ∅ of this base."""
        ...

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents, each (pictures, channels, height, width)."""
        ...

    def encode_hints(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Pictures of one size as a ControlNet of this base reads them, (pictures, channels, height, width)."""
        ...

    def decode_latents(self, latents: Tensor) -> list[Image.Image]:
        """Scaled latents (n, channels, height, width) to n pictures."""
        ...

    def latent_shape(self, size: Size) -> tuple[int, int, int]:
        """Shape of the latent of a picture of `size`; BaseModelError where the base cannot draw it."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noised latents `z_t` of the base's own schedule; `timesteps` (rows,) are integers below `self.timesteps`."""
        ...

    def training_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser shall predict, by the scheduler's prediction type."""
        ...

    def predict(self, latents: Tensor, timesteps: Tensor, conditions: Conditions, size: Size, control: Control | None = None) -> Tensor:
        """One forward of the denoiser on (rows, channels, height, width), with what a ControlNet adds to the same rows."""
        ...

    def make_scheduler(self, name: str | None, steps: int, size: Size | None = None) -> Any:
        """A fresh scheduler with its timesteps set: the base's own, or another diffusers class by name on its config.

        Some bases shift their timesteps by the picture's `size`; the base's own size where null.
        """
        ...

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, start and end included; more than `token_limit` are cut off."""
        ...

    def token_limit(self) -> int: ...
