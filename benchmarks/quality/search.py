"""Learning rates on the validation pairs: what every way of training may choose before the first test picture is drawn."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.quality.arms import Workbench, run_arm, tabulate_pictures
from benchmarks.quality.protocol import TRUTHS, VALIDATION_SUBJECTS, Arm
from benchmarks.quality.results import average_areas, average_pairs, find_range, measure_areas


def search_rates(bench: Workbench, arms: Sequence[Arm], manifest: Path, scale: float, rates: Sequence[float]) -> pd.DataFrame:
    """Area of each arm at each rate, mean over the validation pairs: columns arm, rate, area. All share one range of structure."""
    tables = [
        tabulate_pictures(arm, run_arm(bench, arm, manifest, (0,), rate), scale, VALIDATION_SUBJECTS).assign(arm=f"{arm.name} {rate:g}")
        for arm in arms
        for rate in rates
    ]
    means = average_pairs(pd.concat(tables, ignore_index=True))
    tried = [Arm(name, "") for name in sorted(set(means.arm))]
    areas = measure_areas(means, find_range(means, tried), TRUTHS[0])
    rows = [(*arm.name.split(" "), average_areas(areas, arm.name).value) for arm in tried]
    found = pd.DataFrame(rows, columns=["arm", "rate", "area"])
    return found.assign(rate=found.rate.astype(float)).sort_values(["arm", "rate"], ignore_index=True)
