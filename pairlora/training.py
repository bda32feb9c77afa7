"""Train the content and style adapters of a pack of pairs in one batch on one frozen base.

Jones et al. 2024 (arXiv 2405.01536), section 3: the content adapter learns the content picture (eq. 4), the style
adapter what is left to explain the style picture while the content adapter is held fixed (eq. 6). Noise and timestep
are shared by both pictures. One deviation by name, the *joint update*: both losses come from one batch, so the style
rows see the content adapter as it was before this step's update.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from pairlora.adapters.basis import Basis
from pairlora.adapters.dual import DualAdapters, Role, Segment, attached
from pairlora.adapters.files import Matrices
from pairlora.bases.interface import Base, Conditions
from pairlora.config import TrainConfig
from pairlora.errors import DivergedError
from pairlora.progress import Listener, ProgressEvent, ignore
from pairlora.records import StepLoss

LOGGED_STEPS = 100


@dataclass(frozen=True)
class TrainingPair:
    """What the training of one pair reads. Pictures are RGB squares of the configured resolution.

    `stream` names the pair's random stream; the training fingerprint serves, so that a pair's adapter does not
    depend on its pack.
    """

    stream: str
    content: Image.Image
    style: Image.Image
    content_prompt: str
    style_prompt: str


@dataclass
class TrainedPair:
    """The adapters of one pair, `{layer: (A (rank, in), B (out, rank))}` by role, or the error that ended its training."""

    basis_digest: str
    matrices: dict[Role, Matrices] = field(default_factory=dict)
    losses: list[StepLoss] = field(default_factory=list)
    error: Exception | None = None


@dataclass(frozen=True)
class Draws:
    """Random draws of one step of one pair: `timesteps` (draws,), `noise` and `spread` (draws, channels, height, width)."""

    timesteps: Tensor
    noise: Tensor
    spread: Tensor


def draw_step(stream: str, step: int, count: int, shape: tuple[int, ...], timesteps: int) -> Draws:
    """The draws of (stream, step): no random state to save, and the same alone or in any pack."""
    seed = int.from_bytes(hashlib.sha256(f"{stream} {step}".encode()).digest()[:8], "big", signed=False) >> 1
    generator = torch.Generator().manual_seed(seed)
    return Draws(
        torch.randint(timesteps, (count,), generator=generator),
        torch.randn((count, *shape), generator=generator),
        torch.randn((count, *shape), generator=generator),
    )


class PackExamples:
    """Latents and prompts of a pack, encoded once. Row k of each role belongs to pair k."""

    def __init__(self, base: Base, pairs: Sequence[TrainingPair]):
        self.base = base
        self.size = pairs[0].content.width
        self.streams = [pair.stream for pair in pairs]
        self.latents = {
            Role.CONTENT: base.encode_pictures([pair.content for pair in pairs]),
            Role.STYLE: base.encode_pictures([pair.style for pair in pairs]),
        }
        self.conditions = {
            Role.CONTENT: base.encode_prompts([pair.content_prompt for pair in pairs]),
            Role.STYLE: base.encode_prompts([pair.style_prompt for pair in pairs]),
        }

    def losses(self, adapters: DualAdapters, slots: Sequence[int], roles: Sequence[Role], step: int, count: int) -> dict[Role, Tensor]:
        """Mean squared error per slot, (slots,), of each role asked for (eqs. 4 and 6), from one forward."""
        mean, _ = self.latents[Role.CONTENT]
        draws = [draw_step(self.streams[slot], step, count, mean.shape[1:], self.base.timesteps) for slot in slots]
        timesteps = torch.cat([draw.timesteps for draw in draws]).to(mean.device)
        noise = torch.cat([draw.noise for draw in draws]).to(mean)
        spread = torch.cat([draw.spread for draw in draws]).to(mean)
        rows = torch.tensor(slots, device=mean.device).repeat_interleave(count)
        clean = torch.cat([self.latents[role][0][rows] + self.latents[role][1][rows] * spread for role in roles])
        timesteps, noise = timesteps.repeat(len(roles)), noise.repeat(len(roles), 1, 1, 1)
        conditions = Conditions.cat([self.conditions[role][rows] for role in roles])
        noisy = self.base.add_noise(clean, noise, timesteps)
        with adapters.routed(route_roles(roles, tuple(slots), count)):
            predicted = self.base.predict(noisy, timesteps, conditions, self.size)
        errors = (predicted - self.base.training_target(clean, noise, timesteps)).square().mean(dim=(1, 2, 3))
        return dict(zip(roles, errors.reshape(len(roles), len(slots), count).mean(dim=2), strict=True))


def route_roles(roles: Sequence[Role], slots: tuple[int, ...], count: int) -> list[Segment]:
    """Content rows see their content adapter; style rows see it detached, and their style adapter."""
    segments, rows = [], len(slots) * count
    for index, role in enumerate(roles):
        start, stop = index * rows, (index + 1) * rows
        if role is Role.CONTENT:
            segments.append(Segment(start, stop, Role.CONTENT, slots))
        else:
            segments += [Segment(start, stop, Role.CONTENT, slots, detached=True), Segment(start, stop, Role.STYLE, slots)]
    return segments


def slot_norms(adapters: DualAdapters, role: Role) -> Tensor:
    """Gradient norm per slot, (slots,), over all layers of a role."""
    squares = [parameter.grad.square().sum(dim=(1, 2)) for parameter in adapters.parameters(role) if parameter.grad is not None]
    return torch.stack(squares).sum(0).sqrt()


def scale_gradients(adapters: DualAdapters, role: Role, factors: Tensor) -> None:
    """Multiply each slot's gradients by its factor; a factor of 0 also silences gradients that are not finite."""
    for parameter in adapters.parameters(role):
        if parameter.grad is not None:
            scaled = parameter.grad * factors[:, None, None]
            parameter.grad = torch.where(factors[:, None, None] == 0, torch.zeros_like(scaled), scaled)


class PackTraining:
    """The training of K pairs at once: one slot a pair, each with its own random stream, norms and checks.

    A pair whose loss or gradient is not finite leaves the pack and harms no other.
    """

    def __init__(self, examples: PackExamples, adapters: DualAdapters, train: TrainConfig):
        self.examples = examples
        self.adapters = adapters
        self.train = train
        self.alive = list(range(adapters.slots))
        self.results = [TrainedPair(adapters.basis.digest) for _ in self.alive]
        self.optimizers = {
            role: torch.optim.AdamW(
                adapters.parameters(role), lr=train.learning_rate, betas=(0.9, 0.999), weight_decay=train.weight_decay, foreach=True
            )
            for role in Role
        }

    def take_step(self, step: int) -> dict[str, float]:
        """One optimiser step of every pair that is still alive; gives mean losses for the progress line."""
        roles = [Role.CONTENT] if step < self.train.content_steps else [Role.CONTENT, Role.STYLE]
        losses = self.examples.losses(self.adapters, self.alive, roles, step, self.train.draws)
        torch.stack([loss.sum() for loss in losses.values()]).sum().backward()
        norms = {role: slot_norms(self.adapters, role) for role in roles}
        measured = {slot: self._measure(index, slot, losses, norms, step) for index, slot in enumerate(self.alive)}
        self._retire_diverged(measured)
        for role in roles:
            scale_gradients(self.adapters, role, self._clip_factors(norms[role]))
            self.optimizers[role].step()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        if (step + 1) % max(1, self.train.steps // LOGGED_STEPS) == 0 or step + 1 == self.train.steps:
            for slot in self.alive:
                self.results[slot].losses.append(measured[slot])
        return {f"{role}_loss": loss.detach().mean().item() for role, loss in losses.items()}

    def _measure(self, index: int, slot: int, losses: dict[Role, Tensor], norms: dict[Role, Tensor], step: int) -> StepLoss:
        joint = Role.STYLE in losses
        return StepLoss(
            step=step + 1,
            content_loss=losses[Role.CONTENT][index].item(),
            style_loss=losses[Role.STYLE][index].item() if joint else None,
            content_gradient_norm=norms[Role.CONTENT][slot].item(),
            style_gradient_norm=norms[Role.STYLE][slot].item() if joint else None,
        )

    def _clip_factors(self, norms: Tensor) -> Tensor:
        factors = torch.zeros_like(norms)
        factors[self.alive] = 1.0
        if self.train.gradient_clip is None:
            return factors
        return torch.where(factors > 0, (self.train.gradient_clip / (norms + 1e-12)).clamp(max=1.0), factors)

    def _retire_diverged(self, measured: dict[int, StepLoss]) -> None:
        for slot, values in measured.items():
            numbers = values.model_dump(exclude={"step"}, exclude_none=True)
            bad = [name.replace("_", " ") for name, number in numbers.items() if not math.isfinite(number)]
            if not bad:
                continue
            remedy = f"lower learning_rate ({self.train.learning_rate:g})"
            self.results[slot].error = DivergedError(f"{bad[0]} is not a finite number at step {values.step}; {remedy}")
            self.alive.remove(slot)
            with torch.no_grad():
                for role in Role:
                    for parameter in self.adapters.parameters(role):
                        parameter[slot].zero_()

    def finish(self) -> list[TrainedPair]:
        """The adapters of the pairs that are alive, and the errors of the others."""
        for slot in self.alive:
            self.results[slot].matrices = {role: self.adapters.extract(slot, role) for role in Role}
        return self.results


@contextmanager
def fresh_adapters(base: Base, train: TrainConfig, slots: int) -> Iterator[DualAdapters]:
    """Untrained adapters on every attention projection of a base. RankError where the ranks exceed a layer's width."""
    names = base.attention_projections()
    widths: set[int] = {base.denoiser.get_submodule(name).in_features for name in names}
    basis = Basis.draw(widths, train.content_rank, train.style_rank, train.basis_seed)
    with attached(base.denoiser, names, basis, slots) as adapters:
        yield adapters


def train_pack(base: Base, pairs: Sequence[TrainingPair], train: TrainConfig, listener: Listener = ignore) -> list[TrainedPair]:
    """Train a pack of pairs; one result a pair, in order. Raises RankError where the ranks exceed a layer's width."""
    with fresh_adapters(base, train, len(pairs)) as adapters:
        training = PackTraining(PackExamples(base, pairs), adapters, train)
        for step in range(train.steps):
            if not training.alive:
                break
            facts = training.take_step(step)
            listener(ProgressEvent("train", step + 1, train.steps, "steps", facts=facts))
        return training.finish()
