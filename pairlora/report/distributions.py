"""Charts over all pairs of a run as inline SVG: a dot a pair, and how a metric is spread, both by verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pairlora.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, draw_frame, wrap_chart

BINS = 24
VERDICTS: tuple[str, ...] = ("accept", "review", "reject")


@dataclass(frozen=True)
class PairPoint:
    """A pair at its recommended strength, and the link to its page."""

    name: str
    link: str
    verdict: str
    direction: float
    structure: float


@dataclass(frozen=True)
class Spread:
    """A metric of all pairs as (value, verdict), and the limits of its rule."""

    metric: str
    values: Sequence[tuple[float, str]]
    limits: tuple[float, float]


def draw_scatter(points: Sequence[PairPoint], least_direction: float, floor: float) -> Markup:
    """Style gained against layout kept, a dot a pair that leads to its page; the limits of the rules are dashed."""
    x = Axis(min(0.0, *(point.direction for point in points)), 1.0, LEFT, WIDTH - RIGHT)
    y = Axis(min(0.0, *(point.structure for point in points)), 1.0, HEIGHT - BOTTOM, TOP)
    across = Markup('<line class="floor" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(x.start, x.end, y.place(floor), y.place(floor))
    down = Markup('<line class="floor" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
        x.place(least_direction), x.place(least_direction), y.start, y.end
    )
    dots = [_link(point, x.place(point.direction), y.place(point.structure)) for point in points]
    return wrap_chart(
        "Style gained against layout kept",
        f"{len(points)} pairs at their recommended strengths",
        [draw_frame(x, y, "style gained (direction)", "layout kept (structure_ssim)"), across, down, *dots],
        role="group",  # dots are links, which a picture would hide from screen readers
    )


def _link(point: PairPoint, x: float, y: float) -> Markup:
    words = f"{point.name}, {point.verdict}: direction {point.direction:.2f}, structure {point.structure:.2f}"
    return Markup(
        '<a href="{}" aria-label="{}"><circle class="point {}" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle></a>'
    ).format(point.link, words, point.verdict, x, y, words)


def draw_spread(spread: Spread) -> Markup:
    """A histogram, the verdicts stacked."""
    values = [value for value, _ in spread.values]
    low, high = min(*values, *spread.limits), max(*values, *spread.limits)
    margin = (high - low) / BINS
    x = Axis(low - margin, high + margin, LEFT, WIDTH - RIGHT)
    width = (x.high - x.low) / BINS
    counts = [dict.fromkeys(VERDICTS, 0) for _ in range(BINS)]
    for value, verdict in spread.values:
        counts[min(BINS - 1, math.floor((value - x.low) / width))][verdict] += 1
    y = Axis(0.0, max(4.0, *(sum(count.values()) for count in counts)), HEIGHT - BOTTOM, TOP)
    limits = [
        Markup('<line class="floor" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(x.place(limit), x.place(limit), y.start, y.end)
        for limit in spread.limits
    ]
    bars = [bar for index, count in enumerate(counts) for bar in _stack(count, x, y, x.low + index * width, width)]
    summary = f"{len(values)} pairs from {min(values):.2f} to {max(values):.2f}"
    return wrap_chart(f"How {spread.metric} is spread", summary, [draw_frame(x, y, spread.metric, "pairs"), *bars, *limits])


def _stack(count: dict[str, int], x: Axis, y: Axis, start: float, width: float) -> list[Markup]:
    """The bars of one bin, accepted pairs at the bottom."""
    bars, below = [], 0
    left, right = x.place(start), x.place(start + width)
    for verdict, number in count.items():
        if number:
            bottom, top = y.place(below), y.place(below + number)
            bars.append(
                Markup('<rect class="bar {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                    verdict, left + 0.5, top, right - left - 1, bottom - top
                )
            )
        below += number
    return bars
