"""The edges of a finished picture, which a ControlNet holds a drawing to."""

import numpy as np
from PIL import Image

from pairlora.catalogue.config import ControlConfig
from pairlora.errors import MissingExtraError


def find_edges(picture: Image.Image, control: ControlConfig) -> Image.Image:
    """White edges on black, RGB of the picture's size (Canny 1986, IEEE PAMI 8(6), by OpenCV)."""
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("entry.way = 'control' finds edges by OpenCV; pip install 'pairlora[control]'") from error
    grey = np.asarray(picture.convert("L"))
    return Image.fromarray(np.asarray(cv2.Canny(grey, control.low, control.high))).convert("RGB")
