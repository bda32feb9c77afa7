"""FLUX.1: a transformer on packed latents, T5 and CLIP, flow matching, and the guidance embedding of distilled models."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from PIL import Image
from torch import Tensor

from pairlora.bases.frozen import FrozenPipeline
from pairlora.bases.interface import Conditions, Control, Size, measure_sides
from pairlora.errors import BaseModelError

TEXT_TOKENS = 512
"""Most tokens that T5 reads of a prompt, as in the stock pipeline."""

EMBEDDED_GUIDANCE = 1.0
"""What a guidance-distilled model is told: 1 asks for its unguided velocity, which the training's target is, and which λ_cfg guides."""

PATCH = 2


def pack_latents(latents: Tensor) -> Tensor:
    """Latents (rows, channels, height, width) to one token a 2x2 patch: (rows, height/2 * width/2, 4 * channels)."""
    rows, channels, height, width = latents.shape
    patches = latents.reshape(rows, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(rows, (height // PATCH) * (width // PATCH), channels * PATCH**2)


def unpack_latents(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo `pack_latents`: tokens back to (rows, channels, height, width)."""
    rows, _, features = tokens.shape
    patches = tokens.reshape(rows, height // PATCH, width // PATCH, features // PATCH**2, PATCH, PATCH)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(rows, features // PATCH**2, height, width)


def place_patches(height: int, width: int) -> Tensor:
    """Positions (patches, 3) of the patches of a latent: 0, row, column; the text's are all zero."""
    rows, columns = torch.meshgrid(torch.arange(height // PATCH), torch.arange(width // PATCH), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)


class FluxBase(FrozenPipeline):
    """A frozen FLUX.1 model. `z_t = (1 - sigma) z + sigma eps` with `sigma = t / timesteps`; it predicts `eps - z`."""

    family = "flux"
    denoiser_name = "transformer"
    projection = re.compile(
        r"\.transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_[qkv]_proj|to_add_out)$"
        r"|\.single_transformer_blocks\.\d+\.(attn\.to_[qkv]|proj_out)$"
    )
    left_out: ClassVar = {"image_encoder": None, "feature_extractor": None}
    patch = PATCH

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """T5's states (rows, tokens, width) and CLIP's pooled state of each prompt; ∅ is the encoded empty prompt."""
        states, pooled, _ = self.pipeline.encode_prompt(list(prompts), device=self.device, max_sequence_length=self.token_limit())
        return Conditions({"states": states, "pooled": pooled})

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The straight line from picture to noise, Liu et al. 2022 (arXiv 2209.03003), eq. 1."""
        sigma = (timesteps.to(latents) / self.timesteps)[:, None, None, None]
        return (1 - sigma) * latents + sigma * noise

    def training_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The line's velocity, which is the same at every timestep."""
        return noise - latents

    def encode_hints(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Latents: ControlNets of FLUX see a picture as its autoencoder does."""
        return self.encode_pictures(pictures)[0]

    def predict(self, latents: Tensor, timesteps: Tensor, conditions: Conditions, size: Size, control: Control | None = None) -> Tensor:
        """The velocity at (rows, channels, height, width); the transformer sees the picture as packed patches."""
        states, pooled = conditions.tensors["states"], conditions.tensors["pooled"]
        dtype, (height, width) = self.denoiser.dtype, latents.shape[-2:]
        told = {
            "hidden_states": pack_latents(latents).to(dtype),
            "timestep": timesteps.to(latents.dtype) / self.timesteps,
            "pooled_projections": pooled,
            "encoder_hidden_states": states,
            "txt_ids": torch.zeros(states.shape[1], 3, device=latents.device, dtype=dtype),
            "img_ids": place_patches(height, width).to(latents.device, dtype),
            "return_dict": False,
        }
        added = {} if control is None else self._hear(control, told)
        tokens = self.denoiser(guidance=self._embed_guidance(self.denoiser, latents), **told, **added)[0]
        return unpack_latents(tokens, height, width).to(latents.dtype)

    def _hear(self, control: Control, told: dict[str, Any]) -> dict[str, Any]:
        """What a ControlNet adds to the outputs of the transformer's double and single blocks."""
        hints = pack_latents(control.hints).to(told["hidden_states"])
        guidance = self._embed_guidance(control.net, hints)
        double, single = control.net(controlnet_cond=hints, conditioning_scale=control.scale, guidance=guidance, **told)
        return {"controlnet_block_samples": double, "controlnet_single_block_samples": single}

    @staticmethod
    def _embed_guidance(net: Any, rows: Tensor) -> Tensor | None:
        """The guidance that a distilled model is told for each row; null where it is none."""
        return torch.full((len(rows),), EMBEDDED_GUIDANCE, device=rows.device) if net.config.guidance_embeds else None

    def make_scheduler(self, name: str | None, steps: int, size: Size | None = None) -> Any:
        """A fresh scheduler whose timesteps are shifted towards noise by the picture's `size` where the base asks for it."""
        own = self.pipeline.scheduler
        if (name or type(own).__name__) != FlowMatchEulerDiscreteScheduler.__name__:
            raise BaseModelError(
                f"FLUX is drawn with FlowMatchEulerDiscreteScheduler, not with {name or type(own).__name__}; leave it open"
            )
        if own.config.stochastic_sampling:
            raise BaseModelError("the base's scheduler draws noise in every step, which no seed here decides; unset stochastic_sampling")
        scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(own.config)
        sigmas = None if own.config.get("use_flow_sigmas") else np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(steps, device=self.device, sigmas=sigmas, mu=self._shift_of_size(size))
        scheduler.set_begin_index(0)
        return scheduler

    def _shift_of_size(self, size: Size | None) -> float:
        """`mu`, linear in the number of patches (Esser et al. 2024, arXiv 2403.03206, section 5.3.2)."""
        factor = self.pipeline.vae_scale_factor
        height, width = (side // factor if size else side for side in measure_sides(size or self.pipeline.default_sample_size))
        config = self.pipeline.scheduler.config
        return calculate_shift(
            (height // PATCH) * (width // PATCH), config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
        )

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt in T5, the end included; more than `token_limit` are cut off."""
        return len(self.pipeline.tokenizer_2(prompt).input_ids)

    def token_limit(self) -> int:
        return min(TEXT_TOKENS, self.pipeline.tokenizer_2.model_max_length)
