"""The outcome in words and lines: a table with intervals for the docs, and the figures that `make quality` ends with."""

from collections.abc import Sequence

import pandas as pd

from benchmarks.figures import print_figure
from benchmarks.quality.protocol import NOMINAL, STRUCTURE, TRUTHS, Arm
from benchmarks.quality.results import Difference, average_areas, average_pairs, compare_areas, find_range, measure_areas


def describe(found: Difference) -> str:
    """A mean with its interval."""
    return f"{found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"


def write_area_table(pictures: pd.DataFrame, arms: Sequence[Arm], truth: str) -> str:
    """Markdown: area by arm and style, and ours minus the arm, with 95 % bootstrap intervals over pairs."""
    means = average_pairs(pictures)
    areas = measure_areas(means, find_range(means, list(arms)), truth)
    styles = sorted(set(means["style"]))
    lines = [f"| arm | {' | '.join(f'{style} | ours − arm' for style in styles)} |", f"|---|{'---|' * 2 * len(styles)}"]
    for arm in arms:
        cells = []
        for style in styles:
            cells.append(describe(average_areas(areas, arm.name, style)))
            cells.append("" if arm.name == "ours" else describe(compare_areas(areas, "ours", arm.name, style)))
        lines.append(f"| {arm.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_group_table(pictures: pd.DataFrame, arms: Sequence[Arm]) -> str:
    """Markdown: area on prompts of the subject's own group and on those of other groups, in the same range."""
    means = average_pairs(pictures)
    lowest, styles = find_range(means, list(arms)), sorted(set(means["style"]))
    columns = [f"{style}, {words}" for style in styles for words in ("same group", "other groups")]
    lines = [f"| arm | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    parts = {related: measure_areas(average_pairs(pictures[pictures.related == related]), lowest, TRUTHS[0]) for related in (True, False)}
    for arm in arms:
        cells = [describe(average_areas(parts[related], arm.name, style)) for style in styles for related in (True, False)]
        lines.append(f"| {arm.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_side_table(pictures: pd.DataFrame, arms: Sequence[Arm]) -> str:
    """Markdown: what the nominal setting costs and brings, means over pairs."""
    names = {STRUCTURE: "structure", "direction": "direction", "content_leakage": "content leakage", "subject_leakage": "subject leakage"}
    names |= {"diversity": "diversity", f"gain_{TRUTHS[0]}": "gain, %"}
    means = average_pairs(pictures)
    nominal = means[means.setting == NOMINAL].groupby(["style", "arm"])[list(names)].mean()
    lines = [f"| style | arm | {' | '.join(names.values())} |", f"|---|---|{'---|' * len(names)}"]
    for style in sorted(set(means["style"])):
        for arm in arms:
            values = " | ".join(f"{value:.2f}" for value in nominal.loc[(style, arm.name)])
            lines.append(f"| {style} | {arm.name} | {values} |")
    return "\n".join(lines) + "\n"


def print_figures(pictures: pd.DataFrame, arms: Sequence[Arm]) -> None:
    """Areas of all arms, and the paired differences that the paper's claims rest on."""
    means = average_pairs(pictures)
    areas = measure_areas(means, find_range(means, list(arms)), TRUTHS[0])
    names = {arm.name for arm in arms}
    for style in sorted(set(means["style"])):
        for arm in arms:
            print_figure(f"{arm.name}.area_{style}", average_areas(areas, arm.name, style).value, 0)
        for other in sorted(names & {"style-only", "style-only-weight", "ours-weight", "not-orthogonal", "words"}):
            print_figure(f"ours.area_over_{other}_low_{style}", compare_areas(areas, "ours", other, style).low, 0)
