"""The figure of the curves as SVG: likeness to the ground truth against structure, one panel a style, one line an arm."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.quality.protocol import STRUCTURE, TRUTHS, Arm
from pairlora.report.charts import Axis

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, LEGEND = 460, 380, 58, 12, 34, 44, 210
COLOURS = (
    "#0b6e4f",
    "#c1121f",
    "#1d4ed8",
    "#b45309",
    "#7c3aed",
    "#0891b2",
    "#be185d",
    "#4d7c0f",
    "#6b7280",
    "#111827",
    "#ea580c",
    "#2dd4bf",
)


def draw_figure(means: pd.DataFrame, arms: Sequence[Arm], path: Path) -> None:
    """Write the curves of all arms, means over pairs, each from the unstyled picture on; a dot a strength."""
    truth = f"gain_{TRUTHS[0]}"
    curves = means.groupby(["style", "arm", "setting"])[[STRUCTURE, truth]].mean()
    shown = [arm for arm in arms if arm.name in set(means.arm)]
    panels = [draw_panel(curves.loc[style], style, shown, index * WIDTH) for index, style in enumerate(sorted(set(means["style"])))]
    width = len(panels) * WIDTH + LEGEND
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
    body = "".join([*panels, draw_legend(shown, len(panels) * WIDTH)])
    style = 'font-family="sans-serif" font-size="12"'
    path.write_text(f'{head}{style}><rect width="100%" height="100%" fill="white"/>{body}</svg>\n')


def draw_panel(curves: pd.DataFrame, style: str, arms: Sequence[Arm], left: float) -> str:
    """The axes and curves of one style."""
    truth = f"gain_{TRUTHS[0]}"
    low, high = min(0.0, curves[truth].min()), max(1.0, curves[truth].max())
    x = Axis(curves[STRUCTURE].min() - 0.02, 1.0, left + LEFT, left + WIDTH - RIGHT)
    y = Axis(max(low, -30.0) - 1, high + 1, HEIGHT - BOTTOM, TOP)
    parts = [_text(left + LEFT, 20, style, weight="bold")]
    parts += [
        _line(x.start, y.place(tick), x.end, y.place(tick)) + _text(x.start - 6, y.place(tick) + 4, f"{tick:g}", "end") for tick in y.ticks
    ]
    parts += [
        _line(x.place(tick), y.start, x.place(tick), y.end) + _text(x.place(tick), y.start + 16, f"{tick:g}", "middle") for tick in x.ticks
    ]
    parts.append(_text((x.start + x.end) / 2, HEIGHT - 8, "structure kept (SSIM of edges)", "middle"))
    parts.append(_text(left + 14, (y.start + y.end) / 2, "% of the way to the ground truth", "middle", turned=True))
    for index, arm in enumerate(arms):
        points = [(1.0, 0.0), *curves.loc[arm.name].sort_index()[[STRUCTURE, truth]].itertuples(index=False)]
        placed = [(x.place(a), y.place(b)) for a, b in points if b >= y.low]
        colour, dashed = COLOURS[index % len(COLOURS)], "" if arm.is_trained else ' stroke-dasharray="5 4"'
        corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in placed)
        thick = 3 if arm.name == "ours" else 1.5
        parts.append(f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="{thick}"{dashed}/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{thick + 1:g}" fill="{colour}"/>' for a, b in placed[1:]]
    return "".join(parts)


def draw_legend(arms: Sequence[Arm], left: float) -> str:
    """Names of the arms in the colours of their lines."""
    rows = []
    for index, arm in enumerate(arms):
        y = TOP + 10 + 20 * index
        dashed = "" if arm.is_trained else ' stroke-dasharray="5 4"'
        rows.append(
            f'<line x1="{left + 12}" y1="{y}" x2="{left + 40}" y2="{y}" stroke="{COLOURS[index % len(COLOURS)]}" stroke-width="3"{dashed}/>'
        )
        rows.append(_text(left + 48, y + 4, arm.name))
    return "".join(rows)


def _text(x: float, y: float, words: str, anchor: str = "start", *, weight: str = "normal", turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}"{turn}>{words}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e5e7eb"/>'
