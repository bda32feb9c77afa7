"""From a drawn picture back to the asset's file: its size, its cut-out, its mask, its profile, its format."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms
from PIL.Image import Resampling
from scipy.ndimage import distance_transform_edt

from pairlora.catalogue.config import FilesConfig
from pairlora.images import Layers, encode_png
from pairlora.provenance import PROVENANCE

SUFFIXES = {"png": "png", "jpeg": "jpg", "webp": "webp", "tiff": "tif"}
COVERED = 0.5
"""Least share of a drawn pixel that the asset must cover for the asset's colour to be told from the background's."""


def compose(drawn: Image.Image, asset: Layers, mask: Image.Image | None, files: FilesConfig) -> Image.Image:
    """A drawn picture as the asset: RGB or RGBA at the asset's size, in the profile that is written.

    `mask` is L of the asset's size: where it is 0, every value is the asset's own.
    """
    colours = drawn.resize(asset.size, Resampling.LANCZOS) if drawn.size != asset.size else drawn
    if asset.alpha is not None:
        colours = clean_edges(colours, asset.alpha, drawn.size, files.background)
    keeps_profile = files.profile == "carry" and asset.profile is not None
    if keeps_profile:
        colours = _into_profile(colours, asset.profile or b"")
    if mask is not None:
        colours = Image.composite(colours, asset.own if keeps_profile else asset.colours, mask)
    if asset.alpha is not None:
        colours.putalpha(asset.alpha)
    return colours


def clean_edges(colours: Image.Image, alpha: Image.Image, drawn_size: tuple[int, int], background: str) -> Image.Image:
    """Colours without the background that the drawing blended into its edges, so that a cut-out shows no fringe anywhere.

    A drawn pixel that the asset covers by the share a holds `a F + (1 - a) background`, which gives F where a is large enough;
    all other pixels, transparent ones too, take the colour of the nearest one where it is.
    """
    cover = np.asarray(alpha.resize(drawn_size, Resampling.BOX).resize(alpha.size, Resampling.BILINEAR), np.float32) / 255
    visible = np.asarray(alpha) > 0
    known = (cover >= min(COVERED, 0.5 * float(cover.max()))) & visible
    if not known.any():
        return colours
    ground = np.asarray(Image.new("RGB", (1, 1), background), np.float32)[0, 0]
    share = np.maximum(cover, 1e-3)[..., None]
    pure = np.clip((np.asarray(colours, np.float32) - (1 - share) * ground) / share, 0, 255)
    if not known.all():
        nearest: Any = distance_transform_edt(~known, return_distances=False, return_indices=True)
        pure = pure[nearest[0], nearest[1]]
    return Image.fromarray((pure + 0.5).astype(np.uint8))


def _into_profile(colours: Image.Image, profile: bytes) -> Image.Image:
    target = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    try:
        return ImageCms.profileToProfile(colours, ImageCms.createProfile("sRGB"), target, outputMode="RGB") or colours
    except ImageCms.PyCMSError:  # a profile that only leads out of its space, as some scanners' do
        return colours


def choose_format(asset: Layers, files: FilesConfig, *, masked: bool) -> str:
    """The format that is written: what is asked for, or PNG where that would lose alpha, or touch what a mask protects."""
    wanted = asset.kind if files.format == "same" else files.format
    if wanted not in SUFFIXES or (wanted == "jpeg" and (masked or asset.alpha is not None)):
        return "png"
    return wanted


def encode_asset(picture: Image.Image, asset: Layers, files: FilesConfig, facts: Mapping[str, str], *, masked: bool) -> tuple[bytes, str]:
    """The bytes of a styled asset and the suffix of its format. `facts` stand as JSON in
    PNG text, in EXIF's UserComment, or in the Software tag of a TIFF."""
    kind = choose_format(asset, files, masked=masked)
    words = json.dumps(dict(facts), sort_keys=True)
    carried: dict[str, Any] = {}
    if files.profile == "carry" and asset.profile is not None:
        carried["icc_profile"] = asset.profile
    exif = Image.Exif()
    if files.exif == "carry" and asset.exif:
        exif.load(asset.exif)
    if kind == "png":
        return encode_png(picture, {PROVENANCE: words}, **carried, **({"exif": exif} if len(exif) else {})), "png"
    if kind == "tiff":  # Pillow writes no folder of EXIF into a TIFF
        exif[ExifTags.Base.Software] = f"pairlora {words}"
    else:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"ASCII\x00\x00\x00" + words.encode()
    buffer = io.BytesIO()
    picture.save(buffer, kind.upper(), exif=exif, **carried, **_choose_quality(kind, masked or asset.alpha is not None))
    return buffer.getvalue(), SUFFIXES[kind]


def _choose_quality(kind: str, lossless: bool) -> dict[str, Any]:
    if kind == "webp":
        return {"lossless": True, "exact": True} if lossless else {"quality": 92}
    return {"quality": 95, "subsampling": 0} if kind == "jpeg" else {"compression": "tiff_adobe_deflate"}
