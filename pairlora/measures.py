"""The measures of a style: what each means and which direction is better, means with intervals, the recommended strength."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Metric:
    """A column of the report: meaning, direction, range, and which encoder is behind it."""

    name: str
    meaning: str
    better: Literal["higher", "near 0", "near 1"]
    low: float
    high: float
    encoder: Literal["clip", "perceptual", ""]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("direction", "the same change was made as from the pair's content to its style", "higher", -1, 1, "clip"),
        Metric("progress", "how far the picture went the pair's own way, as a share of it", "higher", -inf, inf, "clip"),
        Metric("style_similarity", "likeness to the pair's style picture; also rewards leakage", "higher", -1, 1, "clip"),
        Metric("text_alignment", "the picture shows what the plain prompt asks for", "higher", -1, 1, "clip"),
        Metric("structure_ssim", "edges lie where the unstyled picture has them", "higher", -1, 1, ""),
        Metric("structure_similarity", "likeness to the unstyled picture of the same prompt and seed", "higher", -1, 1, "clip"),
        Metric("content_leakage", "how much nearer the picture came to the training picture", "near 0", -2, 2, "clip"),
        Metric("subject_leakage", "how much nearer the picture came to the words for the training subject", "near 0", -2, 2, "clip"),
        Metric("spread", "how far the pictures of the other seeds lie from this one", "higher", 0, 2, "clip"),
        Metric("truth_similarity", "likeness to the ground truth as the base's autoencoder shows it", "higher", -1, 1, "clip"),
        Metric(
            "truth_perceptual_similarity",
            "likeness to the ground truth, by features that nobody here trained",
            "higher",
            -1,
            1,
            "perceptual",
        ),
        Metric("truth_ssim", "structural similarity to the ground truth", "higher", -1, 1, ""),
    )
}
"""What is measured of each picture, by name."""

GAINS: dict[str, Metric] = {
    "truth_perceptual_similarity": Metric(
        "truth_perceptual_gain",
        "share of the way from unstyled to the ground truth, by features that nobody here trained",
        "higher",
        -inf,
        1,
        "",
    ),
    "truth_similarity": Metric("truth_gain", "share of the way from unstyled to the ground truth", "higher", -inf, 1, ""),
}
"""What is known of a styled picture only beside the unstyled one of its prompt and seed; the keys name what it is computed from."""


DIVERSITY = Metric("diversity", "spread over that of the unstyled pictures of the prompt; small where seeds collapse", "near 1", 0, inf, "")
"""What is known of a prompt at a strength, and of no single picture."""


SPILL = Metric(
    "spill", "how much the adapter changes pictures of other subjects, over the base's own error on the style picture", "near 0", 0, inf, ""
)
"""What is known of an adapter, and of no picture that it draws."""


def relate_gain(styled: float, unstyled: float) -> float | None:
    """(s_styled - s_unstyled) / (1 - s_unstyled): 0 where styling brought nothing, 1 at the goal; null where unstyled is there already."""
    room = 1 - unstyled
    return (styled - unstyled) / room if room > 1e-9 else None


def bootstrap_mean(values: list[float], samples: int, seed: int) -> tuple[float, float, float]:
    """Mean with its 95 % percentile bootstrap interval: (value, low, high)."""
    data = np.asarray(values, dtype=np.float64)
    means = data[draw_resamples(len(data), samples, seed)].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(data.mean()), float(low), float(high)


@lru_cache(maxsize=64)
def draw_resamples(count: int, samples: int, seed: int) -> np.ndarray:
    """Indices of bootstrap resamples, (samples, count); a report of many pairs asks for the same ones again and again."""
    return np.random.default_rng(seed).integers(count, size=(samples, count))


def recommend_strength(
    progress_by_strength: Mapping[float, float],
    structure_by_strength: Mapping[float, float],
    *,
    least_progress: float,
    structure_floor: float,
    least_pace: float = 0.0,
) -> float | None:
    """The smallest strength whose mean progress is enough and at full pace while the layout stays.

    Free of ground truth. Strengths whose mean structure_ssim falls below `structure_floor` are out of the question; null where
    none is left or where no strength moves in the pair's direction at all. Where none brings `least_progress`, the furthest
    is enough. Pace is progress over strength: where a stronger one has more than 1 / `least_pace` times as much, the style has
    not set in yet. 0 asks for no pace.
    """
    allowed = {
        strength: value
        for strength, value in progress_by_strength.items()
        if strength > 0 and structure_by_strength.get(strength, 0.0) >= structure_floor and value > 0
    }
    if not allowed:
        return None
    enough = min(least_progress, max(allowed.values()))
    paces = {strength: value / strength for strength, value in allowed.items()}
    return min(
        strength
        for strength, value in allowed.items()
        if value >= enough and paces[strength] >= least_pace * max(pace for other, pace in paces.items() if other >= strength)
    )


@dataclass(frozen=True)
class Recommendation:
    """A strength (or LoRA weight) by the rule, and how sure it is.

    `share` of the resamples come to the same, be it none; the middle 95 % of those that recommend any lie in `low` to `high`.
    All of it is null where there was nothing to resample.
    """

    value: float | None = None
    share: float | None = None
    low: float | None = None
    high: float | None = None


Cell = tuple[str, int]
"""What is resampled: a (prompt, seed)."""


def weigh_recommendation(
    progress: Mapping[float, Mapping[Cell, float]],
    structure: Mapping[float, Mapping[Cell, float]],
    *,
    least_progress: float,
    structure_floor: float,
    least_pace: float = 0.0,
    samples: int,
    seed: int,
) -> Recommendation:
    """The recommended strength with its bootstrap over cells; both maps hold values by strength and cell."""
    cells = list(dict.fromkeys(cell for values in (progress, structure) for found in values.values() for cell in found))
    if not cells:
        return Recommendation()
    rule = {"least_progress": least_progress, "structure_floor": structure_floor, "least_pace": least_pace}
    means = [{one: float(np.mean(list(found.values()))) for one, found in values.items() if found} for values in (progress, structure)]
    value = recommend_strength(*means, **rule)
    if len(cells) == 1:
        return Recommendation(value)
    draws = np.random.default_rng(seed).multinomial(len(cells), [1 / len(cells)] * len(cells), size=samples)
    strengths = np.array(sorted(progress))
    resampled = [average_cells([values.get(one, {}) for one in strengths.tolist()], cells, draws) for values in (progress, structure)]
    others = recommend_strengths(strengths, *resampled, **rule)
    share = float(np.isnan(others).mean() if value is None else (others == value).mean())
    known = others[~np.isnan(others)]
    if value is None or not len(known):
        return Recommendation(value, share)
    low, high = np.percentile(known, [2.5, 97.5], method="inverted_cdf")
    return Recommendation(value, share, float(low), float(high))


def average_cells(values: Sequence[Mapping[Cell, float]], cells: Sequence[Cell], counts: np.ndarray) -> np.ndarray:
    """Means (resamples, strengths) for `counts` (resamples, cells) and one map of cells a strength; NaN where a resample has no value."""
    known = np.array([[cell in found for cell in cells] for found in values], dtype=np.float64).reshape(-1, len(cells))
    filled = np.array([[found.get(cell, 0.0) for cell in cells] for found in values], dtype=np.float64).reshape(-1, len(cells))
    weights = counts @ known.T
    return np.divide(counts @ filled.T, weights, out=np.full(weights.shape, np.nan), where=weights > 0)


def recommend_strengths(
    strengths: np.ndarray, progress: np.ndarray, structure: np.ndarray, *, least_progress: float, structure_floor: float, least_pace: float
) -> np.ndarray:
    """What `recommend_strength` says to each row of means (resamples, strengths), all at once; NaN for null.

    `strengths` ascend; a mean is NaN where there is no value.
    """
    layout_stays = np.nan_to_num(structure, nan=0.0) >= structure_floor
    allowed = np.where((strengths > 0) & layout_stays & (progress > 0), progress, -inf)
    enough = np.minimum(least_progress, allowed.max(axis=1, keepdims=True, initial=-inf))
    paces = np.divide(allowed, strengths, out=np.zeros_like(allowed), where=np.isfinite(allowed))
    strongest = np.maximum.accumulate(paces[:, ::-1], axis=1)[:, ::-1]
    fit = (allowed >= enough) & np.isfinite(allowed) & (paces >= least_pace * strongest)
    return np.where(fit.any(axis=1), strengths[fit.argmax(axis=1)] if len(strengths) else np.nan, np.nan)
