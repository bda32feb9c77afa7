"""The schedule of a drawing: a diffusers scheduler by name, tried before it is used, and the timing of its steps."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pairlora.bases.interface import Base, Size
from pairlora.config import SampleConfig
from pairlora.errors import BaseModelError
from pairlora.sampling.trajectories import Timing

TRIAL_STEPS = 20
TRIAL_ERROR = 0.08
"""Largest root mean square error of a trial, on a picture of 0.5: schedulers of the base's kind stay below 0.045, others miss by 0.12."""


class Schedule:
    """The timesteps of a drawing in their order, how each is guided, and where drawings of one prompt and seed can be cut."""

    def __init__(self, base: Base, sample: SampleConfig, size: Size | None = None):
        """`size` stands for that of `sample`, where pictures are no squares of it.

        Raises BaseModelError where the scheduler is unknown, draws noise of its own, or does not lead this base to pictures.
        """
        self.remembers = _try_scheduler(base, sample)
        self._fresh = base.make_scheduler(sample.scheduler, sample.steps, size or sample.size)
        self.timesteps: list[Tensor] = list(self.open().timesteps)
        self.timing = Timing.of([float(t) * (1000 / base.timesteps) for t in self.timesteps], sample)

    @property
    def split(self) -> int:
        """The step at which a drawing can go on from latents alone: the first guided one, or 0 where the scheduler remembers more."""
        return 0 if self.remembers else self.timing.fork

    def open(self, step: int = 0) -> Any:
        """A fresh scheduler that is about to take a step; later ones than the first only where it does not remember."""
        scheduler = copy.deepcopy(self._fresh)  # making one anew takes diffusers ten times as long
        if step and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(step)
        return scheduler


def initial_scale(scheduler: Any) -> float:
    """Standard deviation of the noise that a scheduler starts from; flow matching has no name for it, since it is 1."""
    return float(getattr(scheduler, "init_noise_sigma", 1.0))


def scale_input(scheduler: Any, latents: Tensor, t: Tensor) -> Tensor:
    """Latents as the denoiser reads them."""
    return scheduler.scale_model_input(latents, t) if hasattr(scheduler, "scale_model_input") else latents


def add_noise(scheduler: Any, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Latents with noise up to a timestep of an open scheduler, in the scheduler's own scale; flow matching has another name for it."""
    timesteps = t.reshape(1)
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(latents, timesteps, noise)
    return scheduler.add_noise(latents, noise, timesteps)


def _try_scheduler(base: Base, sample: SampleConfig) -> bool:
    """Whether the scheduler keeps earlier latents or predictions, found out on a trial; BaseModelError where it cannot be used.

    The law of the trial: led by the exact prediction of one picture, a scheduler arrives at that picture, and twice alike.
    """
    name = sample.scheduler or "the base's own scheduler"
    try:
        first, remembers = _lead(base, sample, seed=0)
        second, _ = _lead(base, sample, seed=1)
    except (ArithmeticError, AttributeError, ImportError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        raise BaseModelError(
            f"{name} cannot draw with base '{base.name}' ({type(error).__name__}: {error}); choose EulerDiscreteScheduler, for one"
        ) from error
    if not (error := (first - _trial_picture(base, sample)).square().mean().sqrt().item()) < TRIAL_ERROR:
        raise BaseModelError(
            f"{name} does not lead base '{base.name}' to pictures: with exact predictions it misses a picture by {error:.2g}; "
            "choose one of the base's own kind of schedule"
        )
    if not torch.equal(first, second):
        raise BaseModelError(f"{name} draws noise in every step, which no seed here decides; choose a deterministic scheduler")
    return remembers


def _trial_picture(base: Base, sample: SampleConfig) -> Tensor:
    shape = (1, *base.latent_shape(sample.size))
    return 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(1)).clamp(-2, 2).to(base.device)


def _lead(base: Base, sample: SampleConfig, seed: int) -> tuple[Tensor, bool]:
    """Where a scheduler arrives that is told the exact prediction of one picture in every step, and whether it kept tensors."""
    devices = [base.device] if base.device.type == "cuda" else []
    remembers = False
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        scheduler = base.make_scheduler(sample.scheduler, TRIAL_STEPS, sample.size)
        picture = _trial_picture(base, sample)
        noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(2)).to(picture)
        latents = noise * initial_scale(scheduler)
        for t in scheduler.timesteps:
            prediction = _predict_exactly(base, picture, scale_input(scheduler, latents, t), t)
            latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
            remembers |= any(kept.shape == latents.shape for kept in _tensors(list(vars(scheduler).values())))
    return latents, remembers


def _predict_exactly(base: Base, picture: Tensor, noised: Tensor, t: Tensor) -> Tensor:
    """What a perfect denoiser of a world with one picture says about `noised`, in the base's own prediction type."""
    timesteps = t.round().long().clamp(0, base.timesteps - 1).expand(1).to(picture.device)
    one, zero = torch.ones_like(picture), torch.zeros_like(picture)
    alpha, sigma = base.add_noise(one, zero, timesteps), base.add_noise(zero, one, timesteps)
    return base.training_target(picture, (noised - alpha * picture) / sigma, timesteps)


def _tensors(values: list[Any] | tuple[Any, ...]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
