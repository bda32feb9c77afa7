"""Train the content and style adapters of a pack of pairs in one batch on one frozen base.

Jones et al. 2024 (arXiv 2405.01536), section 3: the content adapter learns the content picture (eq. 4), the style
adapter what is left to explain the style picture while the content adapter is held fixed (eq. 6). Noise and timestep
are shared by both pictures. One deviation by name, the *joint update*: both losses come from one batch, so the style
rows see the content adapter as it was before this step's update. `update = "alternating"` is the published order.
"""

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import fmean

import torch
from PIL import Image
from torch import Tensor

from pairlora.adapters.basis import Basis
from pairlora.adapters.dual import ConstantInputs, DualAdapters, Role, Segment, attached
from pairlora.adapters.files import Matrices
from pairlora.adapters.products import frozen_products
from pairlora.bases.interface import Base, Conditions
from pairlora.config import TrainConfig
from pairlora.errors import ConfigError, DivergedError
from pairlora.execution.progress import Listener, ProgressEvent, ignore
from pairlora.records import StepLoss
from pairlora.store.checkpoints import Checkpoint, Checkpoints
from pairlora.training.memory import encoders_parked, recomputed
from pairlora.training.optimizer import RoleOptimizer

LOGGED_STEPS = 100
UNTRAINED = {"style_loss": None, "style_gradient_norm": None}
"""What the content phase has no numbers for."""


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
    lowered_rate: float | None = None
    """The learning rate, where it is not the one that was asked for."""


@dataclass(frozen=True)
class Draws:
    """Random draws of one step of one pair: `timesteps` (draws,), `noise` and `spread` (draws, channels, height, width)."""

    timesteps: Tensor
    noise: Tensor
    spread: Tensor


def draw_step(stream: str, step: int, count: int, shape: tuple[int, ...], timesteps: int, lowest: int = 0) -> Draws:
    """The draws of (stream, step), timesteps from `lowest` to below `timesteps`: no random state to save, and the same in any pack."""
    seed = int.from_bytes(hashlib.sha256(f"{stream} {step}".encode()).digest()[:8], "big", signed=False) >> 1
    generator = torch.Generator().manual_seed(seed)
    return Draws(
        torch.randint(lowest, timesteps, (count,), generator=generator),
        torch.randn((count, *shape), generator=generator),
        torch.randn((count, *shape), generator=generator),
    )


@dataclass(frozen=True)
class Rows:
    """The rows of a forward that stay the same over the steps: row (role, slot, draw), draws innermost."""

    segments: list[Segment]
    conditions: Conditions
    constants: ConstantInputs
    mean: Tensor
    std: Tensor


class PackExamples:
    """Latents and prompts of a pack, encoded once. Row k of each role belongs to pair k."""

    def __init__(self, base: Base, pairs: Sequence[TrainingPair], timestep_range: tuple[int, int] | None = None):
        """`timestep_range` is counted as of 1000, as in the configuration."""
        self.base = base
        self.lowest, self.highest = (base.timesteps * bound // 1000 for bound in timestep_range or (0, 1000))
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
        self._rows: dict[tuple[tuple[Role, ...], tuple[int, ...], int], Rows] = {}

    def losses(self, adapters: DualAdapters, slots: Sequence[int], roles: Sequence[Role], step: int, count: int) -> dict[Role, Tensor]:
        """Mean squared error per slot, (slots,), of each role asked for (eqs. 4 and 6), from one forward."""
        rows = self._lay_rows(tuple(roles), tuple(slots), count)
        shape = rows.mean.shape[1:]
        draws = [draw_step(self.streams[slot], step, count, shape, self.highest, self.lowest) for slot in slots]
        timesteps = torch.cat([draw.timesteps for draw in draws]).to(rows.mean.device).repeat(len(roles))
        noise = torch.cat([draw.noise for draw in draws]).to(rows.mean).repeat(len(roles), 1, 1, 1)
        spread = torch.cat([draw.spread for draw in draws]).to(rows.mean).repeat(len(roles), 1, 1, 1)
        clean = rows.mean + rows.std * spread
        noisy = self.base.add_noise(clean, noise, timesteps)
        with adapters.routed(rows.segments, rows.constants):
            predicted = self.base.predict(noisy, timesteps, rows.conditions, self.size)
        errors = (predicted - self.base.training_target(clean, noise, timesteps)).square().mean(dim=(1, 2, 3))
        return dict(zip(roles, errors.reshape(len(roles), len(slots), count).mean(dim=2), strict=True))

    def _lay_rows(self, roles: tuple[Role, ...], slots: tuple[int, ...], count: int) -> Rows:
        """The rows of these roles and slots, the same objects in every step, so that products of the text are made once."""
        if (key := (roles, slots, count)) not in self._rows:
            self._rows.clear()
            index = torch.tensor(slots, device=self.latents[Role.CONTENT][0].device).repeat_interleave(count)
            conditions = Conditions.cat([self.conditions[role][index] for role in roles])
            self._rows[key] = Rows(
                segments=route_roles(roles, slots, count),
                conditions=conditions,
                constants=ConstantInputs(conditions.tensors.values(), count),
                mean=torch.cat([self.latents[role][0][index] for role in roles]),
                std=torch.cat([self.latents[role][1][index] for role in roles]),
            )
        return self._rows[key]


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


def plan_passes(train: TrainConfig, step: int) -> list[list[Role]]:
    """The forward and backward passes of a step, each with the roles that it trains."""
    if step < train.content_steps:
        return [[Role.CONTENT]]
    return [[Role.CONTENT, Role.STYLE]] if train.update == "joint" else [[Role.CONTENT], [Role.STYLE]]


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
        self.optimizers = {role: RoleOptimizer(adapters, role, train) for role in Role}
        with torch.no_grad():  # shows which layers share an input, so that sums have one order from the first step on
            examples.losses(adapters, [0], [Role.CONTENT], 0, 1)

    def take_step(self, step: int) -> dict[str, float]:
        """One optimiser step of every pair that is still alive; gives mean losses for the progress line."""
        measured: dict[int, dict[str, float]] = {slot: {} for slot in self.alive}
        for roles in plan_passes(self.train, step):
            if self.alive:
                self._take_pass(roles, step, measured)
        if (step + 1) % max(1, self.train.steps // LOGGED_STEPS) == 0 or step + 1 == self.train.steps:
            for slot in self.alive:
                self.results[slot].losses.append(StepLoss.model_validate(UNTRAINED | measured[slot] | {"step": step + 1}))
        losses = [name for name in next(iter(measured.values()), {}) if name.endswith("_loss")]
        return {name: fmean(numbers[name] for numbers in measured.values() if name in numbers) for name in losses}

    def _take_pass(self, roles: Sequence[Role], step: int, measured: dict[int, dict[str, float]]) -> None:
        """One forward, one backward and one optimiser step of the given roles."""
        slots = tuple(self.alive)
        losses = self.examples.losses(self.adapters, slots, roles, step, self.train.draws)
        torch.stack([loss.sum() for loss in losses.values()]).sum().backward()
        norms = {role: self.optimizers[role].norms() for role in roles}
        columns = [column for role in roles for column in (losses[role].detach(), norms[role][list(slots)])]
        names = [name for role in roles for name in (f"{role}_loss", f"{role}_gradient_norm")]
        for slot, numbers in zip(slots, torch.stack(columns, dim=1).tolist(), strict=True):
            measured[slot] |= dict(zip(names, numbers, strict=True))
            self._retire_diverged(slot, measured[slot], step)
        for role in roles:
            self.optimizers[role].step(norms[role], self.alive)

    def _retire_diverged(self, slot: int, numbers: dict[str, float], step: int) -> None:
        bad = [name.replace("_", " ") for name, number in sorted(numbers.items(), key=_losses_first) if not math.isfinite(number)]
        if not bad:
            return
        remedy = f"lower learning_rate ({self.train.learning_rate:g})"
        self.results[slot].error = DivergedError(f"{bad[0]} is not a finite number at step {step + 1}; {remedy}")
        self.alive.remove(slot)
        for optimizer in self.optimizers.values():
            optimizer.silence(slot)

    def restore(self, slot: int, checkpoint: Checkpoint) -> None:
        """Put a pair back to where its checkpoint stands; all pairs of a pack stand at the same step."""
        for role, optimizer in self.optimizers.items():
            taken = checkpoint.step if role is Role.CONTENT else max(0, checkpoint.step - self.train.content_steps)
            optimizer.restore(slot, checkpoint.tensors[role], taken)
        self.results[slot].losses = list(checkpoint.losses)

    def describe(self, step: int) -> dict[str, Checkpoint]:
        """Checkpoints of the pairs that are alive after `step` steps, by stream."""
        return {self.examples.streams[slot]: self._describe_slot(slot, step) for slot in self.alive}

    def _describe_slot(self, slot: int, step: int) -> Checkpoint:
        tensors = {role: optimizer.describe(slot) for role, optimizer in self.optimizers.items()}
        return Checkpoint(step, self.adapters.basis.digest, tensors, tuple(self.results[slot].losses))

    def finish(self) -> list[TrainedPair]:
        """The adapters of the pairs that are alive, and the errors of the others."""
        for slot in self.alive:
            self.results[slot].matrices = {role: self.adapters.extract(slot, role) for role in Role}
        return self.results


def _losses_first(item: tuple[str, float]) -> bool:
    return not item[0].endswith("_loss")


def choose_layers(base: Base, train: TrainConfig) -> list[str]:
    """The attention projections that are adapted. ConfigError where `train.layers` finds none of them."""
    names = base.attention_projections()
    chosen = [name for name in names if train.layers is None or re.search(train.layers, name)]
    if not chosen:
        raise ConfigError(
            f"train.layers = '{train.layers}' finds none of the base's {len(names)} attention projections, such as {names[0]}"
        )
    return chosen


def draw_basis(base: Base, train: TrainConfig) -> Basis:
    """The frozen A for every width of a base's attention projections. RankError where the ranks exceed a width."""
    widths: set[int] = {base.denoiser.get_submodule(name).in_features for name in choose_layers(base, train)}
    return Basis.draw(widths, train.content_rank, train.style_rank, train.basis_seed)


@contextmanager
def fresh_adapters(base: Base, train: TrainConfig, slots: int, basis: Basis | None = None) -> Iterator[DualAdapters]:
    """Untrained adapters on the chosen attention projections of a base. RankError where the ranks exceed a layer's width."""
    with attached(base.denoiser, choose_layers(base, train), basis or draw_basis(base, train), slots) as adapters:
        yield adapters


@contextmanager
def open_pack(
    base: Base, pairs: Sequence[TrainingPair], train: TrainConfig, *, basis: Basis | None = None, recompute: bool = False
) -> Iterator[PackTraining]:
    """A pack before its first step, on a base that is set up for training for the duration of the block."""
    examples = PackExamples(base, pairs, train.timestep_range)
    with ExitStack() as stack:
        stack.enter_context(encoders_parked(base))
        stack.enter_context(frozen_products(base.denoiser))
        adapters = stack.enter_context(fresh_adapters(base, train, len(pairs), basis))
        if recompute:
            stack.enter_context(recomputed(base, adapters))
        yield PackTraining(examples, adapters, train)


def train_pack(
    base: Base,
    pairs: Sequence[TrainingPair],
    train: TrainConfig,
    listener: Listener = ignore,
    *,
    checkpoints: Checkpoints | None = None,
    recompute: bool = False,
) -> list[TrainedPair]:
    """Train a pack of pairs; one result a pair, in order. Raises RankError where the ranks exceed a layer's width.

    With `checkpoints`, pairs go on where an earlier training of theirs was saved; those that stand at one step train together.
    `recompute` saves memory by gradient checkpointing.
    """
    basis = draw_basis(base, train)
    saved = {index: checkpoints.read(pair.stream, basis.digest) if checkpoints else None for index, pair in enumerate(pairs)}
    by_step: dict[int, list[int]] = defaultdict(list)
    for index, checkpoint in saved.items():
        by_step[checkpoint.step if checkpoint else 0].append(index)
    results: dict[int, TrainedPair] = {}
    for start, group in sorted(by_step.items(), reverse=True):
        with open_pack(base, [pairs[index] for index in group], train, basis=basis, recompute=recompute) as training:
            for slot, index in enumerate(group):
                if (checkpoint := saved[index]) is not None:
                    training.restore(slot, checkpoint)
            run_steps(training, start, listener, checkpoints)
            results |= zip(group, training.finish(), strict=True)
    return [results[index] for index in range(len(pairs))]


def run_steps(training: PackTraining, start: int, listener: Listener = ignore, checkpoints: Checkpoints | None = None) -> None:
    """Take the steps of a pack from `start` on, saving it when that is due."""
    steps = training.train.steps
    for step in range(start, steps):
        if not training.alive:
            break
        facts = training.take_step(step)
        if checkpoints is not None and checkpoints.due and step + 1 < steps:
            checkpoints.write(training.describe(step + 1))
        listener(ProgressEvent("train", step + 1, steps, "steps", facts=facts))
