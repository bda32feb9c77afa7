"""The metrics as pure functions of embeddings and pictures; what each means stands in `pairlora.measures`."""

import numpy as np
from PIL import Image
from skimage.filters import sobel
from skimage.metrics import structural_similarity
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two vectors; the raw value, never scaled."""
    return float(a @ b / (a.norm() * b.norm()))


def direction(content: Tensor, style: Tensor, unstyled: Tensor, styled: Tensor) -> float | None:
    """cos(E(style) - E(content), E(styled) - E(unstyled)); null where either change is none."""
    wanted, made = style - content, styled - unstyled
    if float(wanted.norm()) < 1e-6 or float(made.norm()) < 1e-6:
        return None
    return cosine(wanted, made)


def progress(content: Tensor, style: Tensor, unstyled: Tensor, styled: Tensor) -> float | None:
    """(E(styled) - E(unstyled)) · (E(style) - E(content)) / |E(style) - E(content)|²: 1 where the picture went the pair's own way.

    Null where the pair changes nothing. Where `direction` is blind to how much changed, this is what grows with it.
    """
    wanted = style - content
    length = float(wanted @ wanted)
    return float((styled - unstyled) @ wanted) / length if length > 1e-12 else None


def luminance(picture: Image.Image) -> np.ndarray:
    """(height, width), float64 in [0, 1]."""
    return np.asarray(picture.convert("L"), dtype=np.float64) / 255


def structure_ssim(styled: Image.Image, unstyled: Image.Image) -> float:
    """SSIM of the edge maps of two pictures of one size; 1 means that nothing moved."""
    first, second = sobel(luminance(styled)), sobel(luminance(unstyled))
    return float(np.asarray(structural_similarity(first, second, data_range=1.0)))


def truth_ssim(styled: Image.Image, truth: Image.Image) -> float:
    """SSIM over colour of a picture and its ground truth, which is resized to the picture."""
    sized = truth.convert("RGB").resize(styled.size, Image.Resampling.LANCZOS)
    return float(np.asarray(structural_similarity(np.asarray(styled.convert("RGB")), np.asarray(sized), channel_axis=2)))


def spread(pictures: Tensor) -> list[float | None]:
    """Mean 1 - cos of each picture to the others of one prompt and strength, as unit vectors (seeds, width); null for one seed."""
    others = len(pictures) - 1
    if others < 1:
        return [None] * len(pictures)
    return ((1 - pictures @ pictures.T).fill_diagonal_(0).sum(dim=1) / others).tolist()
