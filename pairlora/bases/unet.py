"""What bases with a UNet share: the noise schedule of a diffusion model, its targets, and the choice of schedulers."""

import re
from collections.abc import Sequence
from typing import Any

from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor

from pairlora.bases.frozen import FrozenPipeline
from pairlora.bases.interface import Control, Size
from pairlora.errors import BaseModelError

STOCHASTIC = ("Ancestral", "SDE", "DDPM", "LCM")


class UNetBase(FrozenPipeline):
    """A frozen diffusion model with a UNet, of any diffusers prediction type."""

    denoiser_name = "unet"
    projection = re.compile(r"\.attn[12]\.(to_q|to_k|to_v|to_out\.0)$")

    def __init__(self, pipeline: Any, *, name: str, digest: str, device: str = "cpu"):
        super().__init__(pipeline, name=name, digest=digest, device=device)
        self._noise_schedule: Any = DDPMScheduler.from_config(pipeline.scheduler.config)  # Euler's own add_noise is scaled for sampling

    @property
    def prediction_type(self) -> str:
        """'epsilon' or 'v_prediction', as the scheduler says."""
        return self.pipeline.scheduler.config.prediction_type

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

    def encode_hints(self, pictures: Sequence[Image.Image]) -> Tensor:
        """RGB from 0 to 1, (pictures, 3, height, width): ControlNets of a UNet bring an encoder of their own."""
        return (self._read_pixels(pictures) / 255).to(self.device, self.denoiser.dtype)

    def denoise(self, latents: Tensor, timesteps: Tensor, told: dict[str, Any], control: Control | None) -> Tensor:
        """One forward of the UNet, `told` by name; what a ControlNet makes of the same rows is added to the outputs of its blocks."""
        rows = latents.to(self.denoiser.dtype)
        added: dict[str, Any] = {}
        if control is not None:
            heard = {"controlnet_cond": control.hints, "conditioning_scale": control.scale}
            down, middle = control.net(rows, timesteps, **told, **heard, return_dict=False)
            added = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return self.denoiser(rows, timesteps, **told, **added, return_dict=False)[0].to(latents.dtype)

    def make_scheduler(self, name: str | None, steps: int, size: Size | None = None) -> Any:
        """A fresh scheduler with its timesteps set: the base's own, or another diffusers class by name on its config.

        Its timesteps are the same for every `size`.
        """
        import diffusers

        own = self.pipeline.scheduler
        kind = type(own) if name is None else getattr(diffusers, name, None)
        if kind is None:
            raise BaseModelError(f"diffusers has no scheduler '{name}'; EulerDiscreteScheduler and DDIMScheduler are two of them")
        if any(word in kind.__name__ for word in STOCHASTIC):
            raise BaseModelError(f"{kind.__name__} draws noise in every step, which no seed here decides; choose a deterministic scheduler")
        scheduler = kind.from_config(own.config)
        scheduler.set_timesteps(steps, device=self.device)
        return scheduler

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, start and end included; more than `token_limit` are cut off."""
        return len(self.pipeline.tokenizer(prompt).input_ids)

    def token_limit(self) -> int:
        return self.pipeline.tokenizer.model_max_length
