"""What all bases made of a diffusers pipeline share: frozen parts, the autoencoder, and the layers that take adapters."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import FusedAttnProcessor2_0
from PIL import Image
from torch import Tensor, nn

from pairlora.bases.interface import Size, measure_sides, wide
from pairlora.errors import BaseModelError


def is_fused(attention: nn.Module) -> bool:
    """Whether an attention computes queries, keys and values in one layer; a UNet's own flag stays up when that is undone."""
    if isinstance(attention, AttentionModuleMixin):
        return attention.fused_projections
    return isinstance(getattr(attention, "processor", None), FusedAttnProcessor2_0)


class FrozenPipeline:
    """A diffusers pipeline, frozen and in evaluation mode. Latents are scaled as the denoiser sees them."""

    family: ClassVar[str]
    """Whose adapter files these are: 'sdxl', 'sd15' or 'flux', of whatever size."""

    denoiser_name: str
    """The denoiser's name among the pipeline's parts, and the prefix of its layers in adapter files."""

    projection: ClassVar[re.Pattern[str]]
    """Matches the names of the linear layers that take adapters."""

    left_out: ClassVar[Mapping[str, Any]] = {}
    """Arguments of the pipeline's loading for parts that nothing here uses."""

    patch: ClassVar[int] = 1
    """Latent pixels a side that the denoiser reads as one."""

    def __init__(self, pipeline: Any, *, name: str, digest: str, device: str = "cpu"):
        self.pipeline: Any = pipeline  # its parts are typed too loosely to check
        self.name = name
        self.digest = digest
        self.device = torch.device(device)
        self.denoiser: Any = getattr(pipeline, self.denoiser_name)
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval().to(self.device)

    @property
    def timesteps(self) -> int:
        """Number of training timesteps of the noise schedule."""
        return self.pipeline.scheduler.config.num_train_timesteps

    def attention_projections(self) -> list[str]:
        """Names of the linear layers that take adapters; BaseModelError where projections are fused, which bypasses them."""
        if any(is_fused(module) for module in self.denoiser.modules()):
            remedy = f"call pipeline.{self.denoiser_name}.unfuse_qkv_projections() first"
            raise BaseModelError(f"base '{self.name}' has fused attention projections, which take no adapters; {remedy}")
        return [
            name for name, module in self.denoiser.named_modules() if isinstance(module, nn.Linear) and self.projection.search(f".{name}")
        ]

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents, each (pictures, channels, height, width)."""
        vae = self.pipeline.vae
        pixels = (self._read_pixels(pictures) / 127.5 - 1).to(self.device, vae.dtype)
        posterior = vae.encode(pixels).latent_dist
        dtype = wide(posterior.mean.dtype)
        mean = (posterior.mean - self._shift) * vae.config.scaling_factor
        return mean.to(dtype), (posterior.std * vae.config.scaling_factor).to(dtype)

    @staticmethod
    def _read_pixels(pictures: Sequence[Image.Image]) -> Tensor:
        """RGB (pictures, 3, height, width), from 0 to 255."""
        pixels = torch.stack([torch.from_numpy(np.array(picture.convert("RGB"))) for picture in pictures])
        return pixels.permute(0, 3, 1, 2).float()

    @torch.inference_mode()
    def decode_latents(self, latents: Tensor) -> list[Image.Image]:
        """Scaled latents (n, channels, height, width) to n pictures."""
        vae = self.pipeline.vae
        batch = 8 if max(latents.shape[-2:]) * self.pipeline.vae_scale_factor <= 512 else 1
        unscaled = latents / vae.config.scaling_factor + self._shift
        decoded = [vae.decode(part.to(vae.dtype)).sample for part in unscaled.split(batch)]
        return list(self.pipeline.image_processor.postprocess(torch.cat(decoded), output_type="pil"))

    @property
    def _shift(self) -> float:
        """The mean that the autoencoder's latents have, where its config states one."""
        return self.pipeline.vae.config.shift_factor or 0.0

    @property
    def multiple(self) -> int:
        """What both sides of a picture must be multiples of, in pixels."""
        return self.pipeline.vae_scale_factor * self.patch

    def latent_shape(self, size: Size) -> tuple[int, int, int]:
        """Shape of the latent of a picture of `size`; BaseModelError where the base cannot draw it."""
        factor, multiple = self.pipeline.vae_scale_factor, self.multiple
        height, width = measure_sides(size)
        for side in (height, width):
            if side % multiple:
                raise BaseModelError(f"size = {side} is not a multiple of {multiple}; choose {side // multiple * multiple or multiple}")
        return (self.pipeline.vae.config.latent_channels, height // factor, width // factor)
