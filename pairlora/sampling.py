"""Draw pictures with style guidance: rows of many pictures in one forward, adapters on their own rows only.

Each step is one weighted sum of predictions per picture (Jones et al. 2024, eqs. 10-11). Rows that would be equal are
computed once: before the onset, and in the first guided step, a picture's rows depend on (prompt, seed) alone, so all
strengths and styles share them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from pairlora.adapters.dual import DualAdapters, Role, Segment
from pairlora.bases.interface import Base, Conditions, wide
from pairlora.config import SampleConfig
from pairlora.guidance import guidance_weights
from pairlora.progress import Listener, ProgressEvent, ignore


@dataclass(frozen=True)
class StyleTerm:
    """One style of a picture: the slot of its adapter, the prompt in the style, and the strength λ."""

    slot: int
    prompt: str
    strength: float


@dataclass(frozen=True)
class ImageRequest:
    """A picture to draw. Without styles it is what the base draws by itself."""

    prompt: str
    seed: int
    styles: tuple[StyleTerm, ...] = ()

    @property
    def active_styles(self) -> tuple[StyleTerm, ...]:
        """Styles with a strength; one of strength 0 costs nothing."""
        return tuple(style for style in self.styles if style.strength != 0)


@dataclass(frozen=True)
class Trajectory:
    """What a picture's latents depend on so far; pictures on one trajectory have equal latents."""

    prompt: str
    seed: int
    styles: tuple[StyleTerm, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row of a forward: which latents, read with which prompt, through which style slot (None: base alone)."""

    trajectory: Trajectory
    prompt: str
    slot: int | None = None


def initial_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """The noise of a seed, float32 (channels, height, width): it depends on the seed and the shape alone."""
    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed))[0]


def weigh_rows(request: ImageRequest, trajectory: Trajectory, guidance_scale: float, guided: bool) -> dict[Row, float]:
    """The rows of one picture in one step, with their weights in the sum.

    Left out is only what the user gave as such: the unconditional row at guidance scale 1, a style of strength 0.
    """
    styles = request.active_styles if guided else ()
    uncond, cond, *styled = guidance_weights(guidance_scale, [style.strength for style in styles])
    rows = {} if guidance_scale == 1 else {Row(trajectory, ""): uncond}
    rows[Row(trajectory, request.prompt)] = cond
    for style, weight in zip(styles, styled, strict=True):
        row = Row(trajectory, style.prompt, style.slot)
        rows[row] = rows.get(row, 0.0) + weight
    return rows


def route_slots(slots: Sequence[int | None]) -> list[Segment]:
    """Segments for rows that are sorted by slot, base rows first."""
    segments, start = [], 0
    for index in range(1, len(slots) + 1):
        if index < len(slots) and slots[index] == slots[start]:
            continue
        slot = slots[start]
        if slot is not None:
            segments.append(Segment(start, index, Role.STYLE, (slot,)))
        start = index
    return segments


class Sampler:
    """Draws batches of pictures on one base with the adapters that are attached to it."""

    def __init__(self, base: Base, adapters: DualAdapters | None, sample: SampleConfig):
        self.base = base
        self.adapters = adapters
        self.sample = sample

    @torch.inference_mode()
    def draw(self, requests: Sequence[ImageRequest], listener: Listener = ignore) -> list[Image.Image]:
        """Draw the requested pictures, in order, each `sample.size` pixels a side."""
        return self.base.decode_latents(self.draw_latents(requests, listener))

    @torch.inference_mode()
    def draw_latents(self, requests: Sequence[ImageRequest], listener: Listener = ignore) -> Tensor:
        """The denoised latents (requests, channels, height, width) of the requested pictures."""
        scheduler = self.base.make_scheduler(self.sample.scheduler, self.sample.steps, self.sample.size)
        told = ["", *(prompt for request in requests for prompt in (request.prompt, *(style.prompt for style in request.active_styles)))]
        prompts = {prompt: index for index, prompt in enumerate(dict.fromkeys(told))}
        conditions = self.base.encode_prompts(list(prompts))
        shape = self.base.latent_shape(self.sample.size)
        latents = torch.stack([initial_noise(request.seed, shape) for request in requests])
        latents = latents.to(conditions.device, wide(conditions.dtype)) * scheduler.init_noise_sigma
        trajectories = [Trajectory(request.prompt, request.seed) for request in requests]
        onset = self.sample.onset * self.base.timesteps / 1000
        for index, t in enumerate(scheduler.timesteps):
            guided = float(t) <= onset
            x = scheduler.scale_model_input(latents, t)
            weighted = [
                weigh_rows(request, trajectory, self.sample.guidance_scale, guided)
                for request, trajectory in zip(requests, trajectories, strict=True)
            ]
            combined = self._combine(weighted, trajectories, x, t, conditions, prompts)
            latents = scheduler.step(combined, t, latents, return_dict=False)[0]
            if guided:
                trajectories = [Trajectory(request.prompt, request.seed, request.active_styles) for request in requests]
            listener(ProgressEvent("draw", index + 1, len(scheduler.timesteps), "steps"))
        return latents

    def _combine(
        self,
        weighted: list[dict[Row, float]],
        trajectories: list[Trajectory],
        x: Tensor,
        t: Tensor,
        conditions: Conditions,
        prompts: dict[str, int],
    ) -> Tensor:
        """The weighted sums of all pictures from one pass over their distinct rows."""
        rows = sorted({row: None for rows in weighted for row in rows}, key=lambda row: -1 if row.slot is None else row.slot)
        first = {trajectory: index for index, trajectory in reversed(list(enumerate(trajectories)))}
        sources = torch.tensor([first[row.trajectory] for row in rows], device=x.device)
        told = conditions[[prompts[row.prompt] for row in rows]]
        predictions = self._predict([row.slot for row in rows], x[sources], t, told)
        position = {row: index for index, row in enumerate(rows)}
        weights = torch.zeros(len(weighted), len(rows), device=x.device, dtype=x.dtype)
        for picture, terms in enumerate(weighted):
            for row, weight in terms.items():
                weights[picture, position[row]] = weight
        return (weights @ predictions.flatten(1)).reshape(x.shape)

    def _predict(self, slots: list[int | None], x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """Predictions of all rows, `batch_rows` at a time; a base row sees no adapter."""
        parts = []
        for start in range(0, len(slots), self.sample.batch_rows):
            stop = min(start + self.sample.batch_rows, len(slots))
            chunk = conditions[start:stop]
            timesteps = t.expand(stop - start).to(x.device)
            if self.adapters is None:
                parts.append(self.base.predict(x[start:stop], timesteps, chunk, self.sample.size))
                continue
            with self.adapters.routed(route_slots(slots[start:stop])):
                parts.append(self.base.predict(x[start:stop], timesteps, chunk, self.sample.size))
        return torch.cat(parts)
