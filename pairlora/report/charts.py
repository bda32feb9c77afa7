"""Small charts as inline SVG: axes, labels and a legend; colours come from the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pairlora.records import StepLoss

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 16, 30, 42


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`, in decades where `is_log`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = (math.log10(one) for one in (self.low, self.high, value)) if self.is_log else (self.low, self.high, value)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round values to label, some four to seven of them."""
        return tick_decades(self.low, self.high) if self.is_log else tick_evenly(self.low, self.high)


def tick_evenly(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(index * step, 10) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def tick_decades(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 times these where the range is short."""
    factors = (1, 2, 5) if high / low < 1000 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


@dataclass(frozen=True)
class StrengthPoint:
    """Mean direction and mean structure at one strength."""

    strength: float
    direction: float
    structure: float


def draw_tradeoff(points: Sequence[StrengthPoint], recommended: float | None, floor: float) -> Markup:
    """Style gained against layout kept, one point per strength; the recommended one is filled, the floor of the rule dashed."""
    x = Axis(min(0.0, *(point.direction for point in points)), 1.0, LEFT, WIDTH - RIGHT)
    y = Axis(min(0.0, *(point.structure for point in points)), 1.0, HEIGHT - BOTTOM, TOP)
    places = [(x.place(point.direction), y.place(point.structure)) for point in points]
    dots = [_dot(*place, point.strength, is_recommended=point.strength == recommended) for point, place in zip(points, places, strict=True)]
    limit = Markup('<line class="floor" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text class="note" x="{}" y="{:.1f}">{}</text>').format(
        LEFT, WIDTH - RIGHT, y.place(floor), y.place(floor), WIDTH - RIGHT - 4, y.place(floor) - 5, f"least layout allowed, {floor:g}"
    )
    body = [draw_frame(x, y, "style gained (direction)", "layout kept (structure_ssim)"), limit, _line(places, "trade"), *dots]
    summary = "; ".join(f"strength {one.strength:g}: direction {one.direction:.2f}, structure {one.structure:.2f}" for one in points)
    return wrap_chart("Style gained against layout kept", summary, body)


def _dot(x: float, y: float, strength: float, *, is_recommended: bool) -> Markup:
    kind, radius = ("dot chosen", 6.5) if is_recommended else ("dot", 4.5)
    circle = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(kind, x, y, radius)
    return circle + Markup('<text class="mark" x="{:.1f}" y="{:.1f}">λ {:g}</text>').format(x + 9, y - 6, strength)


def draw_losses(losses: Sequence[StepLoss]) -> Markup:
    """Content and style loss over the training's steps on a logarithmic axis: each step pale, their running mean strong."""
    curves = {
        "content": [(loss.step, loss.content_loss) for loss in losses if is_drawable(loss.content_loss)],
        "style": [(loss.step, loss.style_loss) for loss in losses if loss.style_loss is not None and is_drawable(loss.style_loss)],
    }
    values = [value for curve in curves.values() for _, value in curve]
    if not values:
        return Markup("")
    steps = [loss.step for loss in losses]
    x = Axis(min(steps), max(*steps, min(steps) + 1), LEFT, WIDTH - RIGHT)
    y = Axis(min(values) / 1.2, max(values) * 1.2, HEIGHT - BOTTOM, TOP, is_log=True)
    body = [draw_frame(x, y, "step", "loss")]
    for index, (name, curve) in enumerate((name, curve) for name, curve in curves.items() if curve):
        body += [_line(_place_all(curve, x, y), f"{name} pale"), _line(_place_all(smooth(curve), x, y), name), _key(name, index)]
    last = "; ".join(f"{name} loss ends at {curve[-1][1]:.3g}" for name, curve in curves.items() if curve)
    return wrap_chart("Loss over training steps", last, body)


def is_drawable(loss: float) -> bool:
    """Whether a logarithmic axis has a place for it."""
    return math.isfinite(loss) and loss > 0


def smooth(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The running geometric mean over about a twelfth of the curve, which is a plain mean on the logarithmic axis."""
    half = len(curve) // 24
    logs = [math.log(value) for _, value in curve]
    windows = [logs[max(0, index - half) : index + half + 1] for index in range(len(logs))]
    return [(step, math.exp(sum(window) / len(window))) for (step, _), window in zip(curve, windows, strict=True)]


def _place_all(curve: Sequence[tuple[float, float]], x: Axis, y: Axis) -> list[tuple[float, float]]:
    return [(x.place(step), y.place(value)) for step, value in curve]


def _line(places: Sequence[tuple[float, float]], kind: str) -> Markup:
    return Markup('<polyline class="line {}" points="{}"/>').format(kind, " ".join(f"{x:.1f},{y:.1f}" for x, y in places))


def _key(name: str, index: int) -> Markup:
    x = WIDTH - RIGHT - 150 + 80 * index
    line = Markup('<line class="line {}" x1="{}" x2="{}" y1="14" y2="14"/>').format(name, x, x + 18)
    return line + Markup('<text class="key" x="{}" y="18">{}</text>').format(x + 24, name)


def draw_frame(x: Axis, y: Axis, x_label: str, y_label: str) -> Markup:
    """Grid lines, tick labels and the names of both axes."""
    rows = [
        Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text class="tick end" x="{}" y="{:.1f}">{:g}</text>').format(
            x.start, x.end, y.place(tick), y.place(tick), x.start - 7, y.place(tick) + 4, tick
        )
        for tick in y.ticks
    ]
    columns = [
        Markup('<text class="tick middle" x="{:.1f}" y="{}">{:g}</text>').format(x.place(tick), y.start + 17, tick) for tick in x.ticks
    ]
    base = Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x.start, x.end, y.start, y.start)
    names = Markup('<text class="name middle" x="{}" y="{}">{}</text><text class="name" x="4" y="18">{}</text>').format(
        (x.start + x.end) / 2, HEIGHT - 6, x_label, y_label
    )
    return Markup("").join([*rows, base, *columns, names])


def wrap_chart(title: str, summary: str, body: Sequence[Markup], role: str = "img") -> Markup:
    """A chart with the words for those who do not see it."""
    opening = Markup('<svg class="chart" viewBox="0 0 {} {}" role="{}" aria-label="{}">').format(WIDTH, HEIGHT, role, f"{title}. {summary}")
    return Markup("").join([opening, *body, Markup("</svg>")])
