"""From pictures to numbers: curves by pair, areas in a common range, and paired differences with intervals over pairs."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.quality.curves import measure_area, measure_gain
from benchmarks.quality.protocol import STRUCTURE, TRUTHS, Arm
from pairlora.measures import bootstrap_mean

SAMPLES = 10_000
"""Bootstrap resamples over pairs."""


@dataclass(frozen=True)
class Difference:
    """Mean of a paired difference over `pairs`, with its 95 % bootstrap interval over them."""

    value: float
    low: float
    high: float
    pairs: int


def average_pairs(pictures: pd.DataFrame) -> pd.DataFrame:
    """Means over prompts and seeds: one row an arm, pair and setting, with `gain` columns for each measure of truth.

    The unstyled pictures, setting 0, are the same ones for all arms, so a gain is one over them.
    """
    keys = ["arm", "style", "pair_id", "setting"]
    numbers = [name for name in pictures.columns if name not in {*keys, "prompt", "related", "seed", "url"}]
    means = pictures.groupby(keys, as_index=False)[numbers].mean()
    unstyled = means[means.setting == 0].set_index(["arm", "pair_id"])
    at = pd.MultiIndex.from_frame(means[["arm", "pair_id"]])
    for truth in TRUTHS:
        means[f"gain_{truth}"] = measure_gain(means[truth], unstyled[truth].reindex(at).to_numpy())
    means["diversity"] = means["spread"] / unstyled["spread"].reindex(at).to_numpy()
    return means[means.setting > 0]


def find_range(means: pd.DataFrame, arms: list[Arm]) -> dict[str, float]:
    """The lowest structure, by style, that the mean curve of every trained arm reaches: where all of them can be compared."""
    trained = means[means.arm.isin([arm.name for arm in arms if arm.is_trained])]
    curves = trained.groupby(["style", "arm", "setting"])[STRUCTURE].mean()
    return curves.groupby(["style", "arm"]).min().groupby("style").max().to_dict()


def measure_areas(means: pd.DataFrame, lowest: dict[str, float], truth: str) -> pd.DataFrame:
    """Area of every arm and pair: columns arm, style, pair_id, area."""
    rows = []
    for (arm, style, pair_id), curve in means.groupby(["arm", "style", "pair_id"]):
        ordered = curve.sort_values("setting")
        area = measure_area(ordered[STRUCTURE].tolist(), ordered[f"gain_{truth}"].tolist(), lowest[str(style)])
        rows.append({"arm": arm, "style": style, "pair_id": pair_id, "area": area})
    return pd.DataFrame(rows)


def average_areas(areas: pd.DataFrame, arm: str, style: str | None = None) -> Difference:
    """Mean area of an arm over pairs, of one style or all."""
    chosen = areas[(areas.arm == arm) & ((areas["style"] == style) if style else True)]
    return _bootstrap(chosen.area.to_numpy())


def compare_areas(areas: pd.DataFrame, arm: str, other: str, style: str | None = None) -> Difference:
    """Area of an arm minus that of another on the same pairs."""
    table = areas[(areas["style"] == style) if style else slice(None)].pivot(index="pair_id", columns="arm", values="area")
    return _bootstrap((table[arm] - table[other]).dropna().to_numpy())


def _bootstrap(values: np.ndarray) -> Difference:
    return Difference(*bootstrap_mean(values.tolist(), SAMPLES, 0), len(values))
