"""A base and an encoder that do nothing: what a run takes with them is what planning, Prefect, workers, store and report take."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor, nn

from pairlora.bases.interface import Conditions

SIDE = 16
"""Pixels a side of all pictures: SSIM wants eleven."""
WIDTH = 4


class IdleDenoiser(nn.Module):
    """One linear layer, which takes adapters as the projection of an attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.config: dict[str, Any] = {}
        self.to_q = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, latents: Tensor) -> Tensor:
        return self.to_q(latents.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(latents.shape)


class IdleBase:
    """A base of sixteen weights; prompts are told to nobody, and pictures are the means of latents."""

    denoiser_name = "unet"
    family = "sdxl"
    timesteps = 1000

    def __init__(self, name: str, digest: str, device: str):
        torch.manual_seed(0)
        self.name, self.digest, self.device = name, digest, torch.device(device)
        self.denoiser = IdleDenoiser().requires_grad_(False)
        self._scheduler: Any = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False)

    def attention_projections(self) -> list[str]:
        return ["to_q"]

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        return Conditions({"states": torch.zeros(len(prompts), 1)})

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> tuple[Tensor, Tensor]:
        grey = torch.tensor([picture.convert("L").getpixel((0, 0)) / 255 for picture in pictures])
        mean = grey.reshape(-1, 1, 1, 1).expand(-1, *self.latent_shape(SIDE))
        return mean, torch.zeros_like(mean)

    def decode_latents(self, latents: Tensor) -> list[Image.Image]:
        greys = (latents.mean(dim=(1, 2, 3)).sigmoid() * 255).int().tolist()
        return [Image.new("RGB", (SIDE, SIDE), (grey, grey, grey)) for grey in greys]

    def latent_shape(self, size: int) -> tuple[int, int, int]:
        return (WIDTH, size // 8, size // 8)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self._scheduler.add_noise(latents, noise, timesteps)

    def training_target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise

    def predict(self, latents: Tensor, timesteps: Tensor, conditions: Conditions, size: int) -> Tensor:
        return self.denoiser(latents)

    def make_scheduler(self, name: str | None, steps: int, size: int | None = None) -> Any:
        scheduler: Any = DDIMScheduler.from_config(self._scheduler.config)
        scheduler.set_timesteps(steps)
        return scheduler

    def count_tokens(self, prompt: str) -> int:
        return len(prompt.split())

    def token_limit(self) -> int:
        return 77


class IdleEncoder:
    """An encoder whose embeddings are digests of what it is shown."""

    identity = "idle"

    def __init__(self, name: str, revision: str | None = None, device: str = "cpu"):
        pass

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        return torch.stack([_embed(picture.tobytes()) for picture in pictures])

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        return torch.stack([_embed(prompt.encode()) for prompt in prompts])


def _embed(shown: bytes) -> Tensor:
    vector = torch.tensor(list(hashlib.sha256(shown).digest()[:8])) - 127.5
    return vector / vector.norm()


def load_idle_base(name: str, revision: str | None, config: str | None = None, *, device: str, dtype: str) -> IdleBase:
    """In place of `pairlora.bases.load_base`."""
    from pairlora.bases.loading import digest_base

    return IdleBase(name, digest_base(name, revision, config), device)
