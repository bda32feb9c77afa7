"""Which size an asset is drawn at: the nearest to its shape that the base can draw."""

from math import sqrt

WIDEST = 4.0
"""Largest ratio of the sides that is drawn; longer pictures are drawn at this one, and stretched back."""
STEPS = 16
"""Sides are multiples of the base's own size over this many, as bases were trained on buckets (SDXL: 64 of 1,024 pixels)."""


def choose_bucket(width: int, height: int, *, size: int, multiple: int) -> tuple[int, int]:
    """(height, width) with about `size`² pixels, both multiples of `multiple`, nearest to the picture's shape."""
    step = -(-max(multiple, size // STEPS) // multiple) * multiple
    ratio = min(WIDEST, max(1 / WIDEST, width / height))
    drawn_width, drawn_height = size * sqrt(ratio), size / sqrt(ratio)
    return _round(drawn_height, step), _round(drawn_width, step)


def _round(side: float, step: int) -> int:
    return max(step, int(side / step + 0.5) * step)
