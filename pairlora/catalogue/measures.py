"""What is measured of a styled asset beside the metrics of `pairlora.measures`."""

from math import log10

import numpy as np
from PIL import Image

from pairlora.measures import METRICS, Metric

MOST_DECIBELS = 100.0
"""Stands for equal pictures, whose error has no logarithm."""

RECONSTRUCTION: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("reconstruction_psnr", "decibels from strength 0 to the asset as the base sees it; 100 where equal", "higher", 0, 100, ""),
        Metric("autoencoder_psnr", "the same for the base's autoencoder alone, which nothing drawn can beat by much", "higher", 0, 100, ""),
    )
}

SHOWN = ("direction", "progress", "structure_ssim", "content_leakage", "subject_leakage", "truth_similarity")
"""Metrics of the pair's report that a catalogue's page shows."""

CATALOGUE_METRICS: tuple[Metric, ...] = (*(METRICS[name] for name in SHOWN), *RECONSTRUCTION.values())


def measure_psnr(first: Image.Image, second: Image.Image) -> float:
    """Peak signal-to-noise ratio of two RGB pictures of one size, in decibels."""
    difference = np.asarray(first.convert("RGB"), np.float64) - np.asarray(second.convert("RGB"), np.float64)
    mean_square = float(np.square(difference).mean())
    return min(MOST_DECIBELS, 10 * log10(255**2 / mean_square)) if mean_square else MOST_DECIBELS
