"""Learning rates on the validation pairs: what every way of training may choose before the first test picture is drawn."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.quality.arms import Workbench, run_arm, tabulate_pictures
from benchmarks.quality.protocol import TRUTHS, VALIDATION_SUBJECTS, Arm
from benchmarks.quality.results import average_areas, average_pairs, find_range, measure_areas


def search_rates(bench: Workbench, arms: Sequence[Arm], manifest: Path, scale: float, rates: Sequence[float]) -> pd.DataFrame:
    """Areas of each arm at each rate, means over the validation pairs: columns arm, rate, one a measure of truth, and `area`, their mean.

    All share one range of structure.
    """
    tables = [
        tabulate_pictures(arm, run_arm(bench, arm, manifest, (0,), rate), scale, VALIDATION_SUBJECTS).assign(arm=f"{arm.name} {rate:g}")
        for arm in arms
        for rate in rates
    ]
    means = average_pairs(pd.concat(tables, ignore_index=True))
    tried = [Arm(name, "") for name in sorted(set(means.arm))]
    lowest = find_range(means, tried)
    areas = {truth: measure_areas(means, lowest, truth) for truth in TRUTHS}
    found = pd.DataFrame({truth: [average_areas(areas[truth], arm.name).value for arm in tried] for truth in TRUTHS})
    found = found.assign(area=found.mean(axis=1))
    names = pd.DataFrame([arm.name.split(" ") for arm in tried], columns=["arm", "rate"]).astype({"rate": float})
    return pd.concat([names, found], axis=1).sort_values(["arm", "rate"], ignore_index=True)
