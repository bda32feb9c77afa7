"""Changes of colour that need no training: what is bought by them is no merit of a model."""

import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image
from skimage.color import lab2rgb, rgb2lab
from skimage.exposure import match_histograms


def transfer_colour(picture: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Give a picture the mean and spread of the style's colours in CIELAB (Reinhard et al. 2001). Arrays are RGB in [0, 1]."""
    lab, wanted = rgb2lab(picture), rgb2lab(style)
    mean, spread = lab.mean(axis=(0, 1)), lab.std(axis=(0, 1))
    factors = wanted.std(axis=(0, 1)) / np.maximum(spread, 1e-6)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Conversion from CIE-LAB")  # colours that no screen has are clipped
        return np.clip(lab2rgb((lab - mean) * factors + wanted.mean(axis=(0, 1))), 0, 1)


def transfer_histogram(picture: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Give each channel of a picture the histogram of the style's. Arrays are RGB in [0, 1]."""
    return match_histograms(picture, style, channel_axis=2)


TRANSFERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"colour": transfer_colour, "histogram": transfer_histogram}


def restyle(name: str, picture: Image.Image, style: Image.Image, share: float) -> Image.Image:
    """A picture on its way to the transferred one: 0 leaves it alone, 1 arrives, more goes beyond as far as colours do."""
    before, wanted = (np.asarray(one.convert("RGB"), dtype=np.float64) / 255 for one in (picture, style))
    after = before + share * (TRANSFERS[name](before, wanted) - before)
    return Image.fromarray((255 * np.clip(after, 0, 1)).round().astype(np.uint8))
