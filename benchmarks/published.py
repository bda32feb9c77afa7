"""The published training schedule written plainly with PEFT's layers: what the packed training is compared with.

Two adapters on the same layers, A and B trained, one pair, two passes a step: the content pass and its optimiser step, then the
style pass, which sees the content adapter, and its own (Jones et al. 2024, section 3). No code of the authors is used.
"""

import warnings
from typing import Any

import torch
from peft import LoraConfig

from pairlora.adapters import Role
from pairlora.bases.interface import Base
from pairlora.config import TrainConfig
from pairlora.training.packs import TrainingPair, draw_step


class PublishedTraining:
    """Trains one pair on a base of its own, whose denoiser keeps the PEFT layers. `roles` names the adapters, both where left out."""

    def __init__(self, base: Base, pair: TrainingPair, train: TrainConfig, *, encode: bool = False, roles: tuple[Role, ...] = tuple(Role)):
        self.base = base
        self.pair = pair
        self.train = train
        self.encode = encode
        self.roles = roles
        self.pictures = {Role.CONTENT: pair.content, Role.STYLE: pair.style}
        self.conditions = {Role.CONTENT: base.encode_prompts([pair.content_prompt]), Role.STYLE: base.encode_prompts([pair.style_prompt])}
        self.latents = {role: base.encode_pictures([picture]) for role, picture in self.pictures.items()}
        names = base.attention_projections()
        ranks = {Role.CONTENT: train.content_rank, Role.STYLE: train.style_rank}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # two adapters on one denoiser are meant
            for role in roles:
                adapter = LoraConfig(r=ranks[role], lora_alpha=ranks[role], target_modules=names)
                base.denoiser.add_adapter(adapter, adapter_name=role)
        self.optimizers = {role: self._make_optimizer(role) for role in roles}

    def _make_optimizer(self, role: Role) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.parameters(role), lr=self.train.learning_rate, weight_decay=self.train.weight_decay)

    def parameters(self, role: Role) -> list[torch.nn.Parameter]:
        """A and B of one role."""
        return [parameter for name, parameter in self.base.denoiser.named_parameters() if f".{role}." in name]

    def activate(self, role: Role) -> None:
        """The adapters that a pass sees; the content adapter gets no gradient from the style pass."""
        denoiser: Any = self.base.denoiser
        denoiser.set_adapter([Role.CONTENT.value] if role is Role.CONTENT else [one.value for one in self.roles])
        for parameter in self.parameters(Role.CONTENT):
            parameter.requires_grad_(role is Role.CONTENT)

    def compute_loss(self, role: Role, step: int) -> torch.Tensor:
        mean, std = self.base.encode_pictures([self.pictures[role]]) if self.encode else self.latents[role]
        draws = draw_step(self.pair.stream, step, self.train.draws, mean.shape[1:], self.base.timesteps)
        timesteps, noise = draws.timesteps.to(mean.device), draws.noise.to(mean)
        clean = mean + std * draws.spread.to(mean)
        noisy = self.base.add_noise(clean, noise, timesteps)
        conditions = self.conditions[role][[0] * self.train.draws]
        predicted = self.base.predict(noisy, timesteps, conditions, self.pair.content.width)
        return (predicted - self.base.training_target(clean, noise, timesteps)).square().mean()

    def take_pass(self, role: Role, step: int) -> None:
        """One forward, backward and optimiser step of one role."""
        self.activate(role)
        self.compute_loss(role, step).backward()
        self.optimizers[role].step()
        self.optimizers[role].zero_grad()

    def take_step(self, step: int) -> None:
        """Content pass, then style pass."""
        for role in self.roles:
            self.take_pass(role, step)
