"""SDXL and models of its classes: two CLIP text encoders, text_time conditioning, any diffusers prediction type."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor, nn

from pairlora.bases.interface import Conditions, wide
from pairlora.errors import BaseModelError

ATTENTION_PROJECTION = re.compile(r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)$")


class SDXLBase:
    """A frozen SDXL model. Latents are scaled as the denoiser sees them; pictures are PIL, RGB."""

    def __init__(self, pipeline: StableDiffusionXLPipeline, *, name: str, digest: str, device: str = "cpu"):
        self.pipeline: Any = pipeline  # its parts are typed too loosely to check
        self.name = name
        self.digest = digest
        self.device = torch.device(device)
        self.denoiser: Any = pipeline.unet
        self._noise_schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)  # Euler's own add_noise is scaled for sampling
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            part.requires_grad_(False).eval().to(self.device)
        if pipeline.vae.dtype == torch.float16:
            pipeline.vae.to(torch.float32)  # SDXL's autoencoder overflows in half precision

    @property
    def timesteps(self) -> int:
        """Number of training timesteps of the noise schedule."""
        return self.pipeline.scheduler.config.num_train_timesteps

    @property
    def prediction_type(self) -> str:
        """'epsilon' or 'v_prediction', as the scheduler says."""
        return self.pipeline.scheduler.config.prediction_type

    def attention_projections(self) -> list[str]:
        """Names of the linear layers `to_q, to_k, to_v, to_out.0` of every attention in the denoiser."""
        return [
            name
            for name, module in self.denoiser.named_modules()
            if isinstance(module, nn.Linear) and ATTENTION_PROJECTION.search(f".{name}")
        ]

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """Encode prompts; an empty one becomes the dropped-caption condition ∅ of this base (SDXL: zeros)."""
        states, _, pooled, _ = self.pipeline.encode_prompt(list(prompts), device=self.device, do_classifier_free_guidance=False)
        if self.pipeline.config.force_zeros_for_empty_prompt:
            said = torch.tensor([bool(prompt) for prompt in prompts], device=states.device)
            states, pooled = states * said[:, None, None], pooled * said[:, None]
        return Conditions({"states": states, "pooled": pooled})

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents, each (pictures, channels, height, width)."""
        pixels = torch.stack([torch.from_numpy(np.array(picture.convert("RGB"))) for picture in pictures])
        pixels = (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(self.device, self.pipeline.vae.dtype)
        posterior = self.pipeline.vae.encode(pixels).latent_dist
        scale = self.pipeline.vae.config.scaling_factor
        dtype = wide(posterior.mean.dtype)
        return (posterior.mean * scale).to(dtype), (posterior.std * scale).to(dtype)

    @torch.inference_mode()
    def decode_latents(self, latents: Tensor) -> list[Image.Image]:
        """Scaled latents (n, channels, height, width) to n pictures."""
        vae = self.pipeline.vae
        batch = 8 if max(latents.shape[-2:]) * self.pipeline.vae_scale_factor <= 512 else 1
        decoded = [vae.decode((part / vae.config.scaling_factor).to(vae.dtype)).sample for part in latents.split(batch)]
        pixels = self.pipeline.image_processor.postprocess(torch.cat(decoded), output_type="pil")
        return list(pixels)

    def latent_shape(self, size: int) -> tuple[int, int, int]:
        """Shape of the latent of a picture of `size` pixels a side."""
        factor = self.pipeline.vae_scale_factor
        if size % factor:
            raise BaseModelError(f"size = {size} is not a multiple of {factor}; choose {size // factor * factor or factor}")
        return (self.pipeline.unet.config.in_channels, size // factor, size // factor)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The noised latents `z_t` of the base's own schedule."""
        return self._noise_schedule.add_noise(latents, noise, timesteps)

    def training_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser shall predict, by the scheduler's prediction type."""
        match self.prediction_type:
            case "epsilon":
                return noise
            case "v_prediction":
                return self._noise_schedule.get_velocity(latents, noise, timesteps)
        raise BaseModelError(f"base '{self.name}' predicts '{self.prediction_type}'; epsilon and v_prediction are known")

    def predict(self, latents: Tensor, timesteps: Tensor, conditions: Conditions, size: int) -> Tensor:
        """One forward of the denoiser on (rows, channels, height, width); the micro-conditioning says `size` uncropped."""
        states, pooled = conditions.tensors["states"], conditions.tensors["pooled"]
        time_ids = torch.tensor([[size, size, 0, 0, size, size]], device=latents.device, dtype=pooled.dtype)
        added = {"text_embeds": pooled, "time_ids": time_ids.expand(len(latents), -1)}
        rows = latents.to(self.denoiser.dtype)
        return self.denoiser(rows, timesteps, states, added_cond_kwargs=added, return_dict=False)[0].to(latents.dtype)

    def make_scheduler(self, name: str | None, steps: int) -> Any:
        """A fresh scheduler with its timesteps set: the base's own, or another diffusers class by name on its config."""
        import diffusers

        own = self.pipeline.scheduler
        kind = type(own) if name is None else getattr(diffusers, name, None)
        if kind is None:
            raise BaseModelError(f"diffusers has no scheduler '{name}'; EulerDiscreteScheduler and DDIMScheduler are two of them")
        if any(word in kind.__name__ for word in ("Ancestral", "SDE", "DDPM", "LCM")):
            raise BaseModelError(f"{kind.__name__} draws noise in every step, which no seed here decides; choose a deterministic scheduler")
        scheduler = kind.from_config(own.config)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, start and end included; more than `token_limit` are cut off."""
        return len(self.pipeline.tokenizer(prompt).input_ids)

    def token_limit(self) -> int:
        return self.pipeline.tokenizer.model_max_length
