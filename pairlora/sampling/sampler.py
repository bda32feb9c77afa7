"""Draw pictures with style guidance: rows of many pictures in one forward, adapters on their own rows only.

Each step is one weighted sum of predictions per picture (Jones et al. 2024, eqs. 10-11). Rows that would be equal are
computed once: before the onset, and in the first guided step, a picture's rows depend on (prompt, seed) alone, so all
strengths and styles share them, and so can later calls that are given the latents at the onset.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, pairwise

import torch
from PIL import Image
from torch import Tensor

from pairlora.adapters.dual import DualAdapters, Role, Segment
from pairlora.adapters.onednn import onednn_products
from pairlora.bases.interface import Base, Control, Size, wide
from pairlora.config import SampleConfig
from pairlora.execution.progress import Listener, ProgressEvent, ignore
from pairlora.sampling.prompt_memory import MEMORY_BYTES, PromptMemory, remembering
from pairlora.sampling.schedules import Schedule, initial_scale, scale_input
from pairlora.sampling.trajectories import ImageRequest, Row, StyleTerm, Timing, Trajectory, weigh_rows

__all__ = ["ImageRequest", "Row", "Sampler", "StyleTerm", "Timing", "Trajectory", "initial_noise", "route_slots", "weigh_rows"]


def initial_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """The noise of a seed, float32 (channels, height, width): it depends on the seed and the shape alone."""
    return torch.randn((1, *shape), generator=torch.Generator().manual_seed(seed))[0]


def route_slots(slots: Sequence[int | None]) -> list[Segment]:
    """Segments for rows that are sorted by slot, base rows first; neighbouring slots with equally many rows share one."""
    runs, start = [], 0
    for slot, rows in groupby(slots):
        stop = start + len(list(rows))
        if slot is not None:
            runs.append((stop - start, start, slot))
        start = stop
    segments = []
    for length, alike in groupby(runs, key=lambda run: run[0]):
        members = list(alike)
        first = members[0][1]
        segments.append(Segment(first, first + length * len(members), Role.STYLE, tuple(slot for _, _, slot in members)))
    return segments


def cut_evenly(count: int, most: int) -> list[slice]:
    """`count` rows in as few pieces as `most` allows, none of which is more than one row longer than another."""
    pieces = -(-count // most)
    edges = [count * index // pieces for index in range(pieces + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


class RowPredictor:
    """Predicts rows of one drawing, whose prompts are encoded once; a base row sees no adapter."""

    def __init__(self, sampler: "Sampler", prompts: Sequence[str], memory: PromptMemory):
        self.base, self.adapters, self.sample, self.size = sampler.base, sampler.adapters, sampler.sample, sampler.size
        self.controls = sampler.controls
        self.memory = memory
        self.places = {prompt: index for index, prompt in enumerate(dict.fromkeys(["", *prompts]))}
        self.conditions = self.base.encode_prompts(list(self.places))
        self.rows_computed = 0

    def predict(self, rows: Sequence[Row], x: Tensor, t: Tensor) -> Tensor:
        """Predictions (rows, channels, height, width) of rows sorted by slot, `x` in the same order, `batch_rows` at a time."""
        return torch.cat([self._forward(rows[piece], x[piece], t) for piece in cut_evenly(len(rows), self.sample.batch_rows)])

    def _forward(self, rows: Sequence[Row], x: Tensor, t: Tensor) -> Tensor:
        told = self.conditions[[self.places[row.prompt] for row in rows]]
        timesteps = t.expand(len(rows)).to(x.device)
        self.rows_computed += len(rows)
        with self._routed(rows), self.memory.reading([(row.prompt, row.slot) for row in rows], told):
            return self.base.predict(x, timesteps, told, self.size, *self._control(rows))

    def _control(self, rows: Sequence[Row]) -> tuple[Control, ...]:
        """What a ControlNet is told of these rows, base rows and styled ones alike; none where there is no such net."""
        return (Control.cat([self.controls[row.trajectory.origin] for row in rows]),) if self.controls else ()

    @contextmanager
    def _routed(self, rows: Sequence[Row]) -> Iterator[None]:
        if self.adapters is None:
            yield
            return
        with self.adapters.routed(route_slots([row.slot for row in rows])):
            yield


class Sampler:
    """Draws batches of pictures on one base with the adapters that are attached to it.

    `rows_computed` counts the rows of all forwards so far.
    """

    def __init__(
        self,
        base: Base,
        adapters: DualAdapters | None,
        sample: SampleConfig,
        memory_bytes: int = MEMORY_BYTES,
        *,
        schedule: Schedule | None = None,
        size: Size | None = None,
        controls: Mapping[str, Control] | None = None,
    ):
        """Raises BaseModelError where the scheduler cannot be used. `memory_bytes` bounds what a drawing remembers of its prompts.

        `schedule` is that of an earlier sampler of this base, configuration and size: it need not be tried again. `size` stands for
        that of `sample`, where pictures are no squares of it. `controls` are those of one ControlNet, by the origin of the requests.
        """
        self.base = base
        self.adapters = adapters
        self.sample = sample
        self.memory_bytes = memory_bytes
        self.size = size or sample.size
        self.controls = dict(controls or {})
        self.schedule = schedule or Schedule(base, sample, self.size)
        self.rows_computed = 0

    @torch.inference_mode()
    def draw(
        self, requests: Sequence[ImageRequest], listener: Listener = ignore, *, prefixes: Mapping[Trajectory, Tensor] | None = None
    ) -> list[Image.Image]:
        """Draw the requested pictures, in order, each of the sampler's size; `prefixes` as in `draw_latents`."""
        return self.base.decode_latents(self.draw_latents(requests, listener, prefixes=prefixes))

    @torch.inference_mode()
    def draw_latents(
        self, requests: Sequence[ImageRequest], listener: Listener = ignore, *, prefixes: Mapping[Trajectory, Tensor] | None = None
    ) -> Tensor:
        """The denoised latents (requests, channels, height, width) of the requested pictures.

        `prefixes` are latents at the onset from `draw_prefixes` of the same base and configuration; missing ones are drawn.
        """
        end = len(self.schedule.timing)
        with self.predicting(requests) as predictor:
            if not (split := self.schedule.split):
                return self._walk(predictor, requests, self._noise(predictor, requests), range(end), listener)
            missing = [start for start in _starts(requests) if start not in (prefixes or {})]
            known = dict(prefixes or {}) | self._draw_prefixes(predictor, missing, listener)
            latents = torch.stack([known[request.prefix] for request in requests])
            return self._walk(predictor, requests, latents, range(split, end), listener)

    @torch.inference_mode()
    def continue_latents(
        self, requests: Sequence[ImageRequest], starts: Mapping[Trajectory, Tensor], listener: Listener = ignore
    ) -> Tensor:
        """The denoised latents of pictures that go on at the first guided step, each from the latents that `starts` has for its prefix."""
        timing = self.schedule.timing
        with self.predicting(requests) as predictor:
            latents = torch.stack([starts[request.prefix] for request in requests])
            return self._walk(predictor, requests, latents, range(timing.fork, len(timing)), listener)

    @torch.inference_mode()
    def draw_prefixes(self, starts: Sequence[Trajectory], listener: Listener = ignore) -> dict[Trajectory, Tensor]:
        """Latents at the onset (channels, height, width), by prompt and seed; none where a drawing cannot go on from them."""
        if self.schedule.remembers:
            return {}
        with self.predicting(_ask_plain(starts)) as predictor:
            return self._draw_prefixes(predictor, starts, listener)

    def _draw_prefixes(self, predictor: RowPredictor, starts: Sequence[Trajectory], listener: Listener) -> dict[Trajectory, Tensor]:
        if not starts:
            return {}
        plain = _ask_plain(starts)
        latents = self._walk(predictor, plain, self._noise(predictor, plain), range(self.schedule.split), listener)
        return dict(zip(starts, latents, strict=True))

    @contextmanager
    def predicting(self, requests: Sequence[ImageRequest]) -> Iterator[RowPredictor]:
        """What predicts the rows of these pictures; their prompts are encoded, and remembered, for as long."""
        told = [prompt for request in requests for prompt in (request.prompt, *(style.prompt for style in request.active_styles))]
        names = self.base.attention_projections() if self.adapters is None else list(self.adapters.layers)
        denoiser = self.base.denoiser
        with onednn_products(denoiser), remembering(denoiser, names, self.memory_bytes) as memory:
            predictor = RowPredictor(self, told, memory)
            yield predictor
            self.rows_computed += predictor.rows_computed

    def _noise(self, predictor: RowPredictor, requests: Sequence[ImageRequest]) -> Tensor:
        shape = self.base.latent_shape(self.size)
        noise = torch.stack([initial_noise(request.seed, shape) for request in requests])
        conditions = predictor.conditions
        return noise.to(conditions.device, wide(conditions.dtype)) * initial_scale(self.schedule.open())

    def _walk(self, predictor: RowPredictor, requests: Sequence[ImageRequest], latents: Tensor, steps: range, listener: Listener) -> Tensor:
        """Take `steps` of the schedule with the latents of the requested pictures."""
        scheduler, count = self.schedule.open(steps.start), len(self.schedule.timing)
        for step in steps:
            t = self.schedule.timesteps[step]
            combined = self.guide_step(predictor, requests, step, scale_input(scheduler, latents, t))
            latents = scheduler.step(combined, t, latents, return_dict=False)[0]
            listener(ProgressEvent("draw", step + 1, count, "steps"))
        return latents

    def guide_step(self, predictor: RowPredictor, requests: Sequence[ImageRequest], step: int, x: Tensor) -> Tensor:
        """The guided predictions of one step for the requested pictures; `x` are their latents as the denoiser reads them."""
        timing = self.schedule.timing
        trajectories = [timing.locate(request, step) for request in requests]
        weighted = [
            weigh_rows(request, trajectory, self.sample, timing.guidance_scales[step], timing.guided[step])
            for request, trajectory in zip(requests, trajectories, strict=True)
        ]
        return _combine(predictor, weighted, trajectories, x, self.schedule.timesteps[step])


def _ask_plain(starts: Sequence[Trajectory]) -> list[ImageRequest]:
    return [ImageRequest(start.prompt, start.seed, origin=start.origin) for start in starts]


def _starts(requests: Sequence[ImageRequest]) -> list[Trajectory]:
    return list(dict.fromkeys(request.prefix for request in requests))


def _combine(predictor: RowPredictor, weighted: list[dict[Row, float]], trajectories: list[Trajectory], x: Tensor, t: Tensor) -> Tensor:
    """The weighted sums of all pictures from one pass over their distinct rows."""
    rows = sorted({row: None for rows in weighted for row in rows}, key=lambda row: -1 if row.slot is None else row.slot)
    first = {trajectory: index for index, trajectory in reversed(list(enumerate(trajectories)))}
    sources = torch.tensor([first[row.trajectory] for row in rows], device=x.device)
    predictions = predictor.predict(rows, x[sources], t)
    position = {row: index for index, row in enumerate(rows)}
    weights = torch.zeros(len(weighted), len(rows), device=x.device, dtype=x.dtype)
    for picture, terms in enumerate(weighted):
        for row, weight in terms.items():
            weights[picture, position[row]] = weight
    return (weights @ predictions.flatten(1)).reshape(x.shape)
