"""Pictures as trajectories of latents, and the rows of the denoiser that each of their steps is a weighted sum of.

Rows that would be equal are one row. A picture's latents depend at first on its seed alone, then on prompt and seed, and
on its styles only after the first guided step: all pictures that have not parted yet share their rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pairlora.config import SampleConfig
from pairlora.records import PlannedImage
from pairlora.sampling.guidance import guidance_weights


@dataclass(frozen=True)
class StyleTerm:
    """One style of a picture: the slot of its adapter, the prompt in the style, and the strength λ."""

    slot: int
    prompt: str
    strength: float


@dataclass(frozen=True)
class Trajectory:
    """What a picture's latents depend on so far; pictures on one trajectory have equal latents. The noise has no prompt yet."""

    prompt: str
    seed: int
    styles: tuple[StyleTerm, ...] = ()
    origin: str = ""


@dataclass(frozen=True)
class ImageRequest:
    """A picture to draw. Without styles it is what the base draws by itself.

    `origin` names the finished picture that its first latents come from; the noise of the seed alone where empty.
    """

    prompt: str
    seed: int
    styles: tuple[StyleTerm, ...] = ()
    origin: str = ""

    @property
    def active_styles(self) -> tuple[StyleTerm, ...]:
        """Styles with a strength; one of strength 0 costs nothing."""
        return tuple(style for style in self.styles if style.strength != 0)

    @property
    def noise(self) -> Trajectory:
        """What the latents depend on before the first step: the seed."""
        return Trajectory("", self.seed, origin=self.origin)

    @property
    def prefix(self) -> Trajectory:
        """What the latents depend on before the first guided step: prompt and seed."""
        return Trajectory(self.prompt, self.seed, origin=self.origin)

    @property
    def path(self) -> Trajectory:
        """What the latents depend on in the end."""
        return Trajectory(self.prompt, self.seed, self.active_styles, self.origin)


def request_image(planned: PlannedImage) -> ImageRequest:
    """The request of a planned picture, whose style, if any, is in slot 0.

    That of a plain LoRA is its style prompt without styles, to be drawn on a base whose every row sees the adapter.
    """
    if planned.lora_weight is not None:
        return ImageRequest(planned.style_prompt, planned.seed)
    styles = (StyleTerm(0, planned.style_prompt, planned.strength),) if planned.strength else ()
    return ImageRequest(planned.prompt, planned.seed, styles)


@dataclass(frozen=True)
class Row:
    """One row of a forward: which latents, read with which prompt, through which style slot (None: base alone)."""

    trajectory: Trajectory
    prompt: str
    slot: int | None = None


@dataclass(frozen=True)
class Timing:
    """Of each step: whether styles guide it, and its guidance scale, which is 1 where no unconditional row is computed."""

    guided: tuple[bool, ...]
    guidance_scales: tuple[float, ...]

    @classmethod
    def of(cls, timesteps: Sequence[float], sample: SampleConfig) -> "Timing":
        """The timing of a drawing whose `timesteps` are counted as of 1000."""
        high, low = sample.guidance_interval or (float("inf"), -float("inf"))
        scales = tuple(sample.guidance_scale if low <= t <= high else 1.0 for t in timesteps)
        return cls(tuple(t <= sample.onset for t in timesteps), scales)

    @classmethod
    def evenly(cls, sample: SampleConfig) -> "Timing":
        """The timing on evenly spaced timesteps: what is known without a scheduler."""
        return cls.of([1000 * (1 - index / sample.steps) for index in range(sample.steps)], sample)

    def __len__(self) -> int:
        return len(self.guided)

    @property
    def fork(self) -> int:
        """The first guided step, up to which pictures of one prompt and seed are the same; the number of steps where none is."""
        return self.guided.index(True) if True in self.guided else len(self)

    def locate(self, request: ImageRequest, step: int) -> Trajectory:
        """What the latents of a picture depend on as a step begins."""
        if step == 0:
            return request.noise
        return request.prefix if step <= self.fork else request.path


def weigh_rows(request: ImageRequest, trajectory: Trajectory, sample: SampleConfig, scale: float, guided: bool) -> dict[Row, float]:
    """The rows of one picture in one step, with their weights in the sum, which add up to 1.

    `scale` is the guidance scale of this step. Where it is 1 for lack of the unconditional row (`guidance_interval`),
    strengths shrink alike and keep their share of the guidance scale: at Σλ_i = λ_cfg the styled prediction is left
    alone. Left out is only what the user gave as such: the unconditional row at scale 1, a style of strength 0.
    """
    styles = request.active_styles if guided else ()
    strengths = [style.strength * (scale / sample.guidance_scale) for style in styles]
    uncond, cond, *styled = guidance_weights(scale, strengths)
    terms = [] if scale == 1 else [(Row(trajectory, ""), uncond)]
    terms.append((Row(trajectory, request.prompt), cond))
    terms += [(Row(trajectory, style.prompt, style.slot), weight) for style, weight in zip(styles, styled, strict=True)]
    rows: dict[Row, float] = {}
    for row, weight in terms:
        rows[row] = rows.get(row, 0.0) + weight
    return rows
