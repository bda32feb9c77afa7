"""Which assets to look at first: those that stand out from the catalogue for the worse."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pairlora.catalogue.collection import AssetContents

WORSE_WHEN_LOW = ("reconstruction_psnr", "structure_ssim", "direction")
WORSE_WHEN_HIGH = ("content_leakage", "subject_leakage")
SPREAD = 1.4826
"""Turns the median absolute deviation of a normal distribution into its standard deviation."""
LEAST_ASSETS = 5
"""With fewer there is no telling what stands out."""


@dataclass(frozen=True)
class Oddness:
    """How many spreads an asset lies on the bad side of the catalogue's median, where it does so most."""

    spreads: float
    metric: str
    adapter: str
    strength: float

    @property
    def words(self) -> str:
        where = f" with {self.adapter} at λ {self.strength:g}" if self.strength else ""
        return f"{self.metric} {self.spreads:.1f} spreads worse than the median{where}"


def find_odd(assets: Sequence[AssetContents]) -> dict[int, Oddness]:
    """The oddness of each asset that has scores, by row; none where the catalogue is too small to tell."""
    values: dict[tuple[str, str, float], list[tuple[int, float]]] = defaultdict(list)
    for asset in assets:
        for key, badness in _list_badness(asset):
            values[key].append((asset.outcome.row, badness))
    found: dict[int, Oddness] = {}
    for key, column in values.items():
        if len(column) < LEAST_ASSETS:
            continue
        data = np.array([badness for _, badness in column])
        median = np.median(data)
        spread = SPREAD * np.median(np.abs(data - median))
        for row, badness in column:
            spreads = float((badness - median) / max(spread, 1e-6 * (1 + abs(median))))
            if row not in found or spreads > found[row].spreads:
                found[row] = Oddness(spreads, *key)
    return found


def _list_badness(asset: AssetContents) -> Iterator[tuple[tuple[str, str, float], float]]:
    """Each value of an asset with its sign turned so that more is worse, by (metric, adapter, strength)."""
    for image in asset.images:
        where = (image.reference.adapter if image.reference.strength else "", image.reference.strength)
        for metric in (*WORSE_WHEN_LOW, *WORSE_WHEN_HIGH):
            value = image.values.get(metric)
            if value is None or (not image.reference.strength and metric != "reconstruction_psnr"):
                continue
            yield (metric, *where), -value if metric in WORSE_WHEN_LOW else value


def sort_odd_first(assets: Sequence[AssetContents], odd: dict[int, Oddness]) -> list[AssetContents]:
    """Failures first, then the oddest, then the others in the order of the catalogue."""

    def rank(asset: AssetContents) -> tuple[bool, float]:
        row = asset.outcome.row
        return bool(asset.images), -odd[row].spreads if row in odd else 0.0

    return sorted(assets, key=rank)
