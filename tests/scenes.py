"""Pictures that tests of pictures share."""

import struct

import numpy as np
from PIL import Image, ImageCms

from pairlora.config import PictureLimits
from pairlora.images import decode_picture

LIMITS = PictureLimits()


def decode(data: bytes, limits: PictureLimits = LIMITS) -> Image.Image:
    return decode_picture(data, limits, name="dog.png")


def draw_scene(width: int, height: int) -> Image.Image:
    """Smooth and different everywhere; the same scene at every resolution."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    channels = (x * 255, y * 255, 127.5 + 127.5 * np.sin(3 * x + 2 * y))
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))


def draw_noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def difference(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


def make_swapped_profile() -> bytes:
    """sRGB with red and green exchanged: no two profiles are further apart."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * struct.unpack(">I", profile[128:132])[0], 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)
