"""Learning rates on the validation pairs: what every way of training may choose, for each style, before a test picture is drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.quality.arms import Workbench, run_arm, tabulate_pictures
from benchmarks.quality.protocol import TRUTHS, Arm, group_arms
from benchmarks.quality.results import average_areas, average_pairs, find_range, measure_areas

SEEDS = (0,)


def list_tries(arms: Sequence[Arm], rates: Sequence[float]) -> list[tuple[Arm, float]]:
    """Every way of training among the arms at each rate; arms that share their adapters are tried as the first of them."""
    trained = group_arms([arm for arm in arms if arm.is_trained]).values()
    return [(first, rate) for first, *_ in trained for rate in rates]


def search_rates(
    bench: Workbench, tries: Sequence[tuple[Arm, float]], manifest: Path, scale: float, subjects: Mapping[str, str]
) -> pd.DataFrame:
    """Areas of each try, means over a style's validation pairs: columns style, arm, rate, one a measure of truth, and `area`, their mean.

    All share one range of structure. What the bench's store lacks is trained and drawn.
    """
    tables = [
        tabulate_pictures(arm, run_arm(bench, arm, manifest, SEEDS, rate), scale, subjects).assign(arm=f"{arm.name} {rate:g}")
        for arm, rate in tries
    ]
    means = average_pairs(pd.concat(tables, ignore_index=True))
    lowest = find_range(means, [Arm(name, "") for name in set(means.arm)])
    areas = {truth: measure_areas(means, lowest, truth) for truth in TRUTHS}
    rows = []
    for style in sorted(lowest):
        for arm, rate in tries:
            found = {truth: average_areas(areas[truth], f"{arm.name} {rate:g}", style).value for truth in TRUTHS}
            rows.append({"style": style, "arm": arm.name, "rate": rate} | found)
    table = pd.DataFrame(rows)
    return table.assign(area=table[list(TRUTHS)].mean(axis=1))


def choose_best(table: pd.DataFrame) -> pd.DataFrame:
    """The rate with the largest area of each arm: one row an arm, one column a style."""
    best = table.loc[table.groupby(["style", "arm"]).area.idxmax()]
    return best.pivot(index="arm", columns="style", values="rate")
