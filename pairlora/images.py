"""Pictures: read within limits, brought to 8-bit RGB whatever they were, fitted in pairs, and written."""

import hashlib
import io
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Image import Resampling, Transpose
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pairlora.config import PictureLimits
from pairlora.errors import (
    AnimatedPictureError,
    CorruptPictureError,
    EmptyPictureError,
    NotAPictureError,
    PictureError,
    PictureTooLargeError,
)
from pairlora.store.urls import name_url, read_bytes

ALLOWED_FORMATS = "PNG, JPEG, WebP, TIFF or BMP"

ASPECT_TOLERANCE = 0.03
"""How far the aspect ratios of content and style may differ, as a share of the smaller one."""

_OPENERS: tuple[tuple[int, bytes, type[ImageFile.ImageFile]], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", PngImageFile),
    (0, b"\xff\xd8\xff", JpegImageFile),
    (8, b"WEBP", WebPImageFile),
    (0, b"II*\x00", TiffImageFile),
    (0, b"MM\x00*", TiffImageFile),
    (0, b"II+\x00", TiffImageFile),
    (0, b"MM\x00+", TiffImageFile),
    (0, b"BM", BmpImageFile),
)
"""Offset and magic bytes of the formats that are allowed. The classes are called rather than `Image.open`: that one warns
of large headers by Python's global warnings, and takes the depth map in a phone's JPEG for a second frame."""

_REFUSED_FORMATS = (
    (0, b"GIF8", "GIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypavif", "AVIF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"%PDF", "PDF"),
)

_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    UserWarning,
)
"""What Pillow's decoders raise on bytes that are not as they should be; its warnings are here for callers that make them errors."""

_TRANSPOSES = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What undoes each value of EXIF's orientation."""

_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_DESCRIPTIVE = frozenset(
    getattr(ExifTags.Base, name).value for name in "ImageDescription Make Model Software DateTime Artist Copyright".split()
)
"""Tags of a TIFF that tell of the picture; its others are those of the file."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, 8-bit RGB, with the digest of the bytes that it came from."""

    url: str
    sha256: str
    image: Image.Image


def read_picture(url: str, limits: PictureLimits) -> Picture:
    """The picture at a URL; a PictureError says why it cannot be used, a StoreError that its file system failed."""
    data = read_bytes(url, limits.max_bytes)
    image = decode_picture(data, limits, name=name_url(url))
    return Picture(url=url, sha256=hashlib.sha256(data).hexdigest(), image=image)


@dataclass(frozen=True)
class Layers:
    """A decoded picture in its parts, upright, 8 bits each."""

    colours: Image.Image
    """RGB in sRGB, as they stand below the alpha channel."""
    alpha: Image.Image | None
    """Opacity, where the picture is transparent anywhere."""
    own: Image.Image
    """RGB in the picture's own profile; `colours` where there is none."""
    profile: bytes | None
    """The picture's own profile, where its channels are red, green and blue."""
    exif: bytes
    """EXIF without the orientation, which is undone; empty where there is none."""
    kind: str
    """Format of the file: 'png', 'jpeg', 'webp', 'tiff' or 'bmp'."""

    @property
    def size(self) -> tuple[int, int]:
        return self.colours.size

    def flatten(self, background: str = "#ffffff") -> Image.Image:
        """The picture on a background, RGB."""
        ground = Image.new("RGB", self.size, background)
        ground.paste(self.colours if self.alpha is None else Image.composite(self.colours, ground, self.alpha))
        return ground  # a fresh picture: the file's metadata stay behind


def read_layers(url: str, limits: PictureLimits) -> tuple[Layers, str]:
    """The picture at a URL in its parts, and the digest of its file; errors as of `read_picture`."""
    data = read_bytes(url, limits.max_bytes)
    return decode_layers(data, limits, name=name_url(url)), hashlib.sha256(data).hexdigest()


def decode_picture(data: bytes, limits: PictureLimits, *, name: str) -> Image.Image:
    """The 8-bit RGB picture in `data`: upright, transparency on white, colours in sRGB. `name` is for messages."""
    return decode_layers(data, limits, name=name).flatten()


def decode_layers(data: bytes, limits: PictureLimits, *, name: str) -> Layers:
    """The picture in `data` in its parts: upright, colours in sRGB, with the alpha channel, the profile and EXIF beside them."""
    _check_bytes(len(data), limits, name)
    try:
        with _find_opener(data, name)(io.BytesIO(data)) as opened:
            _check_header(opened, limits, name)
            opened.load()
            return _take_apart(opened, name)
    except _DECODE_ERRORS as error:
        raise CorruptPictureError(f"{name} cannot be decoded to its end ({error}); export or copy it again") from error


def _check_bytes(size: int, limits: PictureLimits, name: str) -> None:
    if size == 0:
        raise EmptyPictureError(f"{name} has no bytes; export or copy it again")
    if size > limits.max_bytes:
        raise PictureTooLargeError(
            f"{name} has more than the {limits.max_bytes} bytes that are allowed; make it smaller, or raise pictures.max_bytes"
        )


def _find_opener(data: bytes, name: str) -> type[ImageFile.ImageFile]:
    for offset, magic, opener in _OPENERS:
        if data.startswith(magic, offset):
            return opener
    kind = next((kind for offset, magic, kind in _REFUSED_FORMATS if data.startswith(magic, offset)), None)
    what = f"is a {kind} file" if kind else "is not a picture"
    raise NotAPictureError(f"{name} {what}; save it as {ALLOWED_FORMATS}")


def _check_header(opened: ImageFile.ImageFile, limits: PictureLimits, name: str) -> None:
    """What can be told before a pixel is decoded."""
    width, height = opened.size
    if width * height > limits.max_pixels:
        size = f"{width}x{height} pixels, more than {limits.max_pixels}"
        raise PictureTooLargeError(f"{name} has {size}; make it smaller, or raise pictures.max_pixels")
    if getattr(opened, "is_animated", False):
        raise AnimatedPictureError(f"{name} holds several frames or pages; export the one that is meant")


def _take_apart(opened: ImageFile.ImageFile, name: str) -> Layers:
    profile = opened.info.get("icc_profile")
    base, alpha = _split_alpha(_reduce_depth(_turn_upright(opened), name), name)
    colours = _convert_colours(base, profile)
    kept = profile if profile and base.mode == "RGB" and _is_profile_of_rgb(profile) else None
    return Layers(
        colours=colours,
        alpha=alpha,
        own=base.copy() if kept else colours,
        profile=kept,
        exif=_read_exif(opened),
        kind=(opened.format or "").lower(),
    )


def _read_exif(opened: ImageFile.ImageFile) -> bytes:
    """EXIF without the orientation, and without what says how a TIFF's pixels lie; damaged EXIF is as none."""
    kept = Image.Exif()
    try:
        exif = opened.getexif()
        for tag in exif:
            if tag in _FOLDERS:
                kept[tag] = dict(exif.get_ifd(tag))
            elif tag in _DESCRIPTIVE or (opened.format != "TIFF" and tag != ExifTags.Base.Orientation):
                kept[tag] = exif[tag]
        return kept.tobytes() if len(kept) else b""
    except _DECODE_ERRORS:
        return b""


def _is_profile_of_rgb(profile: bytes) -> bool:
    try:
        return profile[16:20] == b"RGB " and bool(ImageCms.ImageCmsProfile(io.BytesIO(profile)))  # the space stands in the header
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return False


def _turn_upright(image: Image.Image) -> Image.Image:
    """The picture as EXIF says that it is to be seen; damaged EXIF is as none."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _DECODE_ERRORS:
        return image
    transpose = _TRANSPOSES.get(orientation) if isinstance(orientation, int) else None
    return image if transpose is None else image.transpose(transpose)


def _reduce_depth(image: Image.Image, name: str) -> Image.Image:
    """16-bit grey as 8-bit grey, 65535 on 255; its transparent value becomes alpha."""
    if image.mode == "F":
        raise PictureError(f"{name} holds floating-point values; save it with 8 or 16 bits per channel")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise PictureError(f"{name} holds values of more than 16 bits; save it with 8 or 16 bits per channel")
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if not isinstance(transparent := image.info.get("transparency"), int):
        return grey
    alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, alpha))


def _split_alpha(image: Image.Image, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Colours as L, RGB or CMYK, and the alpha channel where the picture is transparent anywhere."""
    if image.mode == "LA":  # stays grey, so that a grey profile fits
        return image.getchannel("L"), image.getchannel("A")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    if image.mode == "1":
        return image.convert("L"), None
    if image.mode in ("P", "RGBX", "YCbCr"):
        return image.convert("RGB"), None
    raise PictureError(f"{name} has colours of mode {image.mode}; save it as RGB")


def _convert_colours(image: Image.Image, profile: bytes | None) -> Image.Image:
    """sRGB by the embedded profile; a profile that is damaged or meant for other channels is as none."""
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError, OSError, ValueError, TypeError):
        converted = None
    return image.convert("RGB") if converted is None else converted


def fit_pair(content: Image.Image, style: Image.Image, size: int) -> tuple[Image.Image, Image.Image]:
    """Both pictures as squares of `size` pixels that show the same part of the scene, the largest one at the centre.

    Resolutions may differ, aspect ratios by `ASPECT_TOLERANCE`; PictureError otherwise.
    """
    ratios = sorted(picture.width / picture.height for picture in (content, style))
    if ratios[1] / ratios[0] > 1 + ASPECT_TOLERANCE:
        sizes = f"content has {content.width}x{content.height} pixels, style {style.width}x{style.height}"
        raise PictureError(f"{sizes}; both must show the same scene, so crop one to the aspect ratio of the other")
    return _cut_square(content, size), _cut_square(style, size)


def _cut_square(image: Image.Image, size: int) -> Image.Image:
    """Cropped and resized in one resampling, so that half pixels of the crop are not rounded away."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Resampling.LANCZOS, box=(left, top, left + side, top + side))


def encode_png(image: Image.Image, text: Mapping[str, str] | None = None, **carried: Any) -> bytes:
    """PNG with text chunks in the order of their keys; equal pictures and texts give equal bytes. `carried` may be a profile and EXIF."""
    chunks = PngInfo()
    for key, value in sorted((text or {}).items()):
        chunks.add_text(key, value)
    bare = image.copy()
    bare.info = {}  # Pillow would write profiles and the like from here
    buffer = io.BytesIO()
    bare.save(buffer, "PNG", pnginfo=chunks, compress_level=6, **carried)
    return buffer.getvalue()


def make_thumbnail(image: Image.Image, side: int = 256) -> bytes:
    """JPEG of at most `side` pixels a side, below 100 KB for the default whatever it shows; small pictures keep their size."""
    scale = min(1.0, side / max(image.size))
    width, height = (max(1, math.floor(length * scale + 0.5)) for length in image.size)
    small = image.convert("RGB").resize((width, height), Resampling.LANCZOS)
    small.info = {}
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
