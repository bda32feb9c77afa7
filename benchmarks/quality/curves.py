"""Trade-off curves as numbers: likeness to the ground truth bought with structure, and the area below a curve."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

LEVELS = 101
"""Structure levels over which an area is averaged."""


def measure_gain(similarity: float, unstyled: float) -> float:
    """Per cent of the way from the unstyled pictures' likeness to the ground truth that was gone; negative where it leads away."""
    return 100 * (similarity - unstyled) / (1 - unstyled)


def trace_envelope(structures: Sequence[float], gains: Sequence[float], levels: np.ndarray) -> np.ndarray:
    """The best gain of a curve that keeps at least each level of structure.

    A curve is given by its strengths in ascending order and begins at the unstyled picture, structure 1 and gain 0, which everyone
    may choose; between strengths it is taken as straight. The envelope never falls as structure is given up, so it goes on level
    where an arm gives up no more.
    """
    corners = np.array([(1.0, 0.0), *zip(structures, gains, strict=True)])
    kept = np.where(corners[:, 0] >= levels[:, None] - 1e-12, corners[:, 1], -np.inf)
    crossings = [_cross(start, end, levels) for start, end in pairwise(corners)]
    return np.column_stack([kept, *crossings]).max(axis=1)


def _cross(start: np.ndarray, end: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The gain where the line from one (structure, gain) to the next meets each level, -inf where it does not."""
    away = levels - start[0]
    meets = away * (levels - end[0]) < 0
    share = away / (end[0] - start[0] if end[0] != start[0] else 1)
    return np.where(meets, start[1] + share * (end[1] - start[1]), -np.inf)


def measure_area(structures: Sequence[float], gains: Sequence[float], lowest: float) -> float:
    """Mean of the envelope over structure from `lowest` to 1: the normalised area, in per cent of the way to the ground truth."""
    return float(trace_envelope(structures, gains, np.linspace(lowest, 1, LEVELS)).mean())
