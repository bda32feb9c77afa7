"""Stable Diffusion 1.5 and models of its class: one CLIP text encoder, any diffusers prediction type."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from pairlora.bases.interface import Conditions, Control, Size
from pairlora.bases.unet import UNetBase


class SD15Base(UNetBase):
    """A frozen Stable Diffusion model. The condition ∅ is the encoded empty prompt."""

    family = "sd15"
    left_out: ClassVar = {"safety_checker": None, "feature_extractor": None, "image_encoder": None, "requires_safety_checker": False}

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """One row a prompt, (rows, tokens, width); the empty one is a prompt as any other."""
        states, _ = self.pipeline.encode_prompt(list(prompts), self.device, num_images_per_prompt=1, do_classifier_free_guidance=False)
        return Conditions({"states": states})

    def predict(self, latents: Tensor, timesteps: Tensor, conditions: Conditions, size: Size, control: Control | None = None) -> Tensor:
        """One forward of the denoiser on (rows, channels, height, width); it is not told the size."""
        return self.denoise(latents, timesteps, {"encoder_hidden_states": conditions.tensors["states"]}, control)
