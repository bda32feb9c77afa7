"""SDXL and models of its classes: two CLIP text encoders, text_time conditioning, any diffusers prediction type."""

from collections.abc import Sequence

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from pairlora.bases.interface import Conditions, Control, Size, measure_sides
from pairlora.bases.unet import UNetBase


class SDXLBase(UNetBase):
    """A frozen SDXL model."""

    family = "sdxl"

    def __init__(self, pipeline: StableDiffusionXLPipeline, *, name: str, digest: str, device: str = "cpu"):
        super().__init__(pipeline, name=name, digest=digest, device=device)
        if pipeline.vae.dtype == torch.float16:
            pipeline.vae.to(torch.float32)  # SDXL's autoencoder overflows in half precision

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """Encode prompts; an empty one becomes the dropped-caption condition ∅ of this base (SDXL: zeros)."""
        states, _, pooled, _ = self.pipeline.encode_prompt(list(prompts), device=self.device, do_classifier_free_guidance=False)
        if self.pipeline.config.force_zeros_for_empty_prompt:
            said = torch.tensor([bool(prompt) for prompt in prompts], device=states.device)
            states, pooled = states * said[:, None, None], pooled * said[:, None]
        return Conditions({"states": states, "pooled": pooled})

    def predict(self, latents: Tensor, timesteps: Tensor, conditions: Conditions, size: Size, control: Control | None = None) -> Tensor:
        """One forward of the denoiser on (rows, channels, height, width); the micro-conditioning says `size` uncropped."""
        states, pooled = conditions.tensors["states"], conditions.tensors["pooled"]
        sides = measure_sides(size)
        time_ids = torch.tensor([[*sides, 0, 0, *sides]], device=latents.device, dtype=pooled.dtype)
        added = {"text_embeds": pooled, "time_ids": time_ids.expand(len(latents), -1)}
        return self.denoise(latents, timesteps, {"encoder_hidden_states": states, "added_cond_kwargs": added}, control)
