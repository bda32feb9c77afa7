"""From a finished picture to latents that the sampler leads back to it: a drawing's steps, taken backwards.

Every deterministic scheduler without a memory takes an affine step, `x_s = A x_t + B eps(x_t, t)`, where `eps` is what the base
predicts in its own prediction type: DDIM (Song et al. 2020, arXiv 2010.02502, eq. 12), Euler on a diffusion's ODE, and Euler on
the ODE of flow matching. Backwards, `x_t` is the solution of `x_t = (x_s - B eps(x_t, t)) / A`. Plain DDIM inversion puts x_s for
x_t in eps; a fixed-point iteration from there (Pan et al. 2023, arXiv 2309.04907) takes that error away.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pairlora.errors import BaseModelError
from pairlora.sampling.sampler import Sampler
from pairlora.sampling.schedules import Schedule, add_noise, scale_input
from pairlora.sampling.trajectories import ImageRequest, Trajectory

PROBES = 16
AFFINE_ERROR = 1e-4
"""Largest difference between a step and its affine form on values of about 1; schedulers compute in float32."""


def measure_step(schedule: Schedule, step: int) -> tuple[float, float]:
    """A and B of a scheduler's step; BaseModelError where the step is not affine, and so cannot be taken backwards."""
    t = schedule.timesteps[step]
    one = torch.ones(1, 1, 1, PROBES, device=t.device, dtype=torch.float64)
    zero = torch.zeros_like(one)
    a, b = _take(schedule, step, zero, one), _take(schedule, step, one, zero)
    x, eps = (torch.randn(one.shape, generator=torch.Generator().manual_seed(seed)).to(one) for seed in (1, 2))
    missed = (_take(schedule, step, eps, x) - (a * x + b * eps)).abs().max().item()
    if not missed < AFFINE_ERROR * (1 + a.abs().max().item() + b.abs().max().item()):
        raise BaseModelError(
            "the scheduler clips or thresholds what it draws, so its steps cannot be taken backwards; "
            "set sample.scheduler to EulerDiscreteScheduler or DDIMScheduler, or entry.way to noise"
        )
    return a.mean().item(), b.mean().item()


def _take(schedule: Schedule, step: int, prediction: Tensor, x: Tensor) -> Tensor:
    scheduler: Any = schedule.open(step)
    scale_input(scheduler, x, schedule.timesteps[step])  # Euler warns where it was not asked first
    return scheduler.step(prediction, schedule.timesteps[step], x, return_dict=False)[0]


def check_start(schedule: Schedule) -> None:
    """BaseModelError where no drawing can begin between two steps, or none is left to be guided."""
    if schedule.remembers:
        raise BaseModelError(
            "the scheduler remembers earlier steps and cannot begin at a finished picture; "
            "set sample.scheduler to EulerDiscreteScheduler or DDIMScheduler"
        )
    if schedule.timing.fork == len(schedule.timing):
        raise BaseModelError("no step of the schedule lies below entry.timestep; raise it, or sample.steps")


@torch.inference_mode()
def invert(sampler: Sampler, requests: Sequence[ImageRequest], clean: Tensor, refinements: int) -> dict[Trajectory, Tensor]:
    """Latents at the first guided step from which the base alone draws `clean` (requests, channels, height, width), by prefix.

    The requests have no styles; a step takes `1 + refinements` predictions of each.
    """
    check_start(sampler.schedule)
    fork, end = sampler.schedule.timing.fork, len(sampler.schedule.timing)
    x = clean
    with sampler.predicting(requests) as predictor:
        for step in reversed(range(fork, end)):
            a, b = measure_step(sampler.schedule, step)
            scheduler, t, earlier = sampler.schedule.open(step), sampler.schedule.timesteps[step], x
            for _ in range(1 + refinements):
                predicted = sampler.guide_step(predictor, requests, step, scale_input(scheduler, earlier, t))
                earlier = (x - b * predicted) / a
            x = earlier
    return {request.prefix: latents for request, latents in zip(requests, x, strict=True)}


@torch.inference_mode()
def draw_from_noise(sampler: Sampler, requests: Sequence[ImageRequest]) -> dict[Trajectory, Tensor]:
    """Latents at the first guided step that the base draws from the noise of each request's seed, by prefix: of the pictures that the
    requests come from they hold what the sampler's controls say."""
    check_start(sampler.schedule)
    return sampler.draw_prefixes([request.prefix for request in requests])


@torch.inference_mode()
def add_starting_noise(sampler: Sampler, requests: Sequence[ImageRequest], clean: Tensor, noise: Tensor) -> dict[Trajectory, Tensor]:
    """`clean` (requests, channels, height, width) with noise, of the same shape or one for all, up to the first guided step, by prefix."""
    check_start(sampler.schedule)
    fork = sampler.schedule.timing.fork
    noised = add_noise(sampler.schedule.open(fork), clean, noise.to(clean).expand_as(clean), sampler.schedule.timesteps[fork])
    return {request.prefix: latents for request, latents in zip(requests, noised, strict=True)}
