"""The metrics: what each means, what is better, and the pure functions that compute it from embeddings and pictures."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from skimage.filters import sobel
from skimage.metrics import structural_similarity
from torch import Tensor


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
        Metric("style_similarity", "likeness to the pair's style picture; also rewards leakage", "higher", -1, 1, "clip"),
        Metric("text_alignment", "the picture shows what the plain prompt asks for", "higher", -1, 1, "clip"),
        Metric("structure_ssim", "edges lie where the unstyled picture has them", "higher", -1, 1, ""),
        Metric("structure_similarity", "likeness to the unstyled picture of the same prompt and seed", "higher", -1, 1, "clip"),
        Metric("content_leakage", "how much nearer the picture came to the training picture", "near 0", -2, 2, "clip"),
        Metric("subject_leakage", "how much nearer the picture came to the words for the training subject", "near 0", -2, 2, "clip"),
        Metric("truth_similarity", "likeness to the ground truth", "higher", -1, 1, "clip"),
        Metric("truth_perceptual_similarity", "likeness to the ground truth, by features that nobody here trained", "higher", -1, 1, "perceptual"),
        Metric("truth_ssim", "structural similarity to the ground truth", "higher", -1, 1, ""),
        Metric("diversity", "variety over seeds, relative to the unstyled pictures", "near 1", 0, float("inf"), "clip"),
    )
}


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two vectors; the raw value, never scaled."""
    return float(a @ b / (a.norm() * b.norm()))


def direction(content: Tensor, style: Tensor, unstyled: Tensor, styled: Tensor) -> float | None:
    """cos(E(style) - E(content), E(styled) - E(unstyled)); null where either change is none."""
    wanted, made = style - content, styled - unstyled
    if float(wanted.norm()) < 1e-6 or float(made.norm()) < 1e-6:
        return None
    return cosine(wanted, made)


def luminance(picture: Image.Image) -> np.ndarray:
    """(height, width), float64 in [0, 1]."""
    return np.asarray(picture.convert("L"), dtype=np.float64) / 255


def structure_ssim(styled: Image.Image, unstyled: Image.Image) -> float:
    """SSIM of the edge maps of two pictures of one size; 1 means that nothing moved."""
    first, second = sobel(luminance(styled)), sobel(luminance(unstyled))
    return float(structural_similarity(first, second, data_range=1.0))


def truth_ssim(styled: Image.Image, truth: Image.Image) -> float:
    """SSIM over colour of a picture and its ground truth, which is resized to the picture."""
    sized = truth.convert("RGB").resize(styled.size, Image.Resampling.LANCZOS)
    return float(structural_similarity(np.asarray(styled.convert("RGB")), np.asarray(sized), channel_axis=2))


def diversity(styled: Tensor, unstyled: Tensor) -> float | None:
    """Mean pairwise 1 - cos of styled pictures of one prompt over that of the unstyled ones, each (seeds, width)."""
    if len(styled) < 2:
        return None
    spread = [1 - (group @ group.T) for group in (styled, unstyled)]
    upper = np.triu_indices(len(styled), 1)
    numerator, denominator = (float(values.numpy()[upper].mean()) for values in spread)
    return numerator / denominator if denominator > 1e-9 else None


def bootstrap_mean(values: list[float], samples: int, seed: int) -> tuple[float, float, float]:
    """Mean with its 95 % percentile bootstrap interval: (value, low, high)."""
    data = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = data[rng.integers(len(data), size=(samples, len(data)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(data.mean()), float(low), float(high)


def recommend_strength(
    direction_by_strength: dict[float, float], structure_by_strength: dict[float, float], *, direction_share: float, structure_floor: float
) -> float | None:
    """The smallest strength that reaches a share of the largest mean direction while the layout stays.

    Free of ground truth. Strengths whose mean structure_ssim falls below `structure_floor` are out of the question;
    null where none is left or where no strength moves in the pair's direction at all.
    """
    allowed = {
        strength: value
        for strength, value in direction_by_strength.items()
        if strength > 0 and structure_by_strength.get(strength, 0.0) >= structure_floor and value > 0
    }
    if not allowed:
        return None
    enough = direction_share * max(allowed.values())
    return min(strength for strength, value in allowed.items() if value >= enough)
