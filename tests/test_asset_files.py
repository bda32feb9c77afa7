"""The files that come out: the asset's size, cut-out, untouched pixels, colours and words, in formats that studios use."""

import io
import json
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw
from scenes import make_swapped_profile
from tiny_base import make_picture

from pairlora.catalogue.buckets import choose_bucket
from pairlora.catalogue.config import FilesConfig
from pairlora.catalogue.files import compose, encode_asset
from pairlora.config import PictureLimits
from pairlora.images import Layers, decode_layers

LIMITS = PictureLimits()


def save(picture: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def take_apart(picture: Image.Image, kind: str = "PNG", **settings: Any) -> Layers:
    return decode_layers(save(picture, kind, **settings), LIMITS, name="asset")


def write(drawn: Image.Image, asset: Layers, mask: Image.Image | None = None, **files: Any) -> tuple[Image.Image, str]:
    """The file of a drawn picture, opened again, and its suffix."""
    config = FilesConfig(**files)
    data, suffix = encode_asset(compose(drawn, asset, mask, config), asset, config, {"prompt": "ein Bär"}, masked=mask is not None)
    opened = Image.open(io.BytesIO(data))
    opened.load()
    return opened, suffix


def cut_out_disc(side: int, colour: tuple[int, int, int]) -> Image.Image:
    """A disc of one colour with soft edges on nothing."""
    big = Image.new("L", (4 * side, 4 * side))
    ImageDraw.Draw(big).ellipse((side, side, 3 * side, 3 * side), fill=255)
    disc = Image.new("RGBA", (side, side), (*colour, 255))
    disc.putalpha(big.resize((side, side), Image.Resampling.BOX))
    return disc


@pytest.mark.parametrize("side", [32, 97, 256])
def test_a_cut_out_has_no_fringe_on_any_background(side: int):
    asset = take_apart(cut_out_disc(side, (200, 30, 30)))
    drawn = asset.flatten().resize((32, 32), Image.Resampling.LANCZOS)
    found, _ = write(drawn, asset)
    assert found.mode == "RGBA"
    assert np.array_equal(np.asarray(found)[..., 3], np.asarray(asset.alpha))
    visible = np.asarray(found)[np.asarray(asset.alpha) > 0][:, :3].astype(int)
    assert np.abs(visible - (200, 30, 30)).max() < 45
    assert np.abs(visible - (200, 30, 30)).mean() < 10


def test_a_drawn_outline_at_the_edge_of_a_cut_out_stays():
    asset = take_apart(cut_out_disc(64, (250, 200, 60)))
    drawn = asset.flatten()
    ImageDraw.Draw(drawn).ellipse((16, 16, 47, 47), outline="black", width=3)
    found, _ = write(drawn, asset)
    assert max(found.convert("RGB").getpixel((18, 32))) < 40  # pyright: ignore[reportArgumentType, reportOperatorIssue]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("profile", [b"", make_swapped_profile()])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_a_mask_protects_is_bit_for_bit_the_asset(mode: str, profile: bytes, kind: str):
    picture = make_picture(1, 48).convert(mode)
    if mode == "RGBA":
        picture.putalpha(make_picture(2, 48).convert("L"))
    settings: dict[str, Any] = {"icc_profile": profile} if profile else {}
    asset = take_apart(picture, kind, **settings, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    mask = Image.new("L", (48, 48))
    mask.paste(255, (0, 0, 24, 48))
    found, _ = write(make_picture(3), asset, mask)
    before, after = np.asarray(picture), np.asarray(found)
    assert np.array_equal(after[:, 24:], before[:, 24:])
    assert (after[:, :24] != before[:, :24]).any()


def test_a_masked_jpeg_becomes_png_since_jpeg_would_touch_every_pixel():
    asset = take_apart(make_picture(1, 64), "JPEG")
    assert write(make_picture(2), asset)[1] == "jpg"
    found, suffix = write(make_picture(2), asset, Image.new("L", (64, 64)))
    assert suffix == "png"
    assert np.array_equal(np.asarray(found), np.asarray(asset.colours))


@pytest.mark.parametrize(("wanted", "suffix"), [("same", "tif"), ("png", "png"), ("jpeg", "jpg"), ("webp", "webp"), ("tiff", "tif")])
def test_every_format_says_how_it_was_made(wanted: str, suffix: str):
    asset = take_apart(make_picture(1), "TIFF")
    found, written = write(make_picture(2, 16), asset, format=wanted)
    assert (written, found.size) == (suffix, (32, 32))
    assert read_words(found) == {"prompt": "ein Bär"}


def read_words(picture: Image.Image) -> dict[str, str]:
    if picture.format == "PNG":
        return json.loads(picture.info["pairlora"])
    exif = picture.getexif()
    if picture.format == "TIFF":
        return json.loads(exif[ExifTags.Base.Software].removeprefix("pairlora "))
    return json.loads(exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment].removeprefix(b"ASCII\x00\x00\x00"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_profile_and_exif_are_carried_or_dropped_and_the_turn_is_undone_once(kind: str):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist], exif[ExifTags.Base.Orientation] = "somebody", 6
    profile = make_swapped_profile()
    asset = take_apart(make_picture(1, 32).resize((40, 20)), kind, exif=exif, icc_profile=profile)
    assert asset.size == (20, 40)
    carried, _ = write(Image.new("RGB", (32, 32), (10, 200, 30)), asset)
    dropped, _ = write(Image.new("RGB", (32, 32), (10, 200, 30)), asset, profile="drop", exif="drop")
    assert (carried.size, carried.info.get("icc_profile")) == ((20, 40), profile)
    assert carried.getexif()[ExifTags.Base.Artist] == "somebody"
    assert carried.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert dropped.info.get("icc_profile") is None
    assert ExifTags.Base.Artist not in dropped.getexif()
    red, green, _ = np.asarray(carried.convert("RGB"))[20, 10].astype(int)
    assert red > 180 > 40 > green  # the profile has red and green exchanged
    assert abs(np.asarray(dropped.convert("RGB"))[20, 10].astype(int) - (10, 200, 30)).max() < 6


def make_odd_pictures() -> dict[str, bytes]:
    """Pictures as studios have them."""
    colour = make_picture(4, 64)
    deep = Image.fromarray(np.linspace(0, 65535, 40 * 30, dtype=np.uint16).reshape(30, 40))
    return {
        "cmyk": save(colour.convert("CMYK"), "JPEG"),
        "cmyk-tiff": save(colour.convert("CMYK"), "TIFF"),
        "16-bit": save(deep),
        "grey-alpha": save(colour.convert("LA")),
        "palette": save(colour.convert("P"), transparency=0),
        "one-bit": save(colour.convert("1")),
        "dot": save(colour.resize((8, 8))),
        "line": save(colour.resize((300, 2))),
    }


@pytest.mark.parametrize("name", make_odd_pictures())
def test_odd_pictures_come_back_at_their_size(name: str):
    asset = decode_layers(make_odd_pictures()[name], LIMITS, name=name)
    found, _ = write(make_picture(1), asset)
    assert found.size == asset.size
    assert (found.mode == "RGBA") == (asset.alpha is not None)


def test_a_picture_of_24_million_pixels_comes_back_with_its_cut_out():
    alpha = Image.new("L", (6000, 4000))
    alpha.paste(255, (1000, 1000, 5000, 3000))
    picture = Image.new("RGBA", alpha.size, (20, 90, 200, 0))
    picture.putalpha(alpha)
    asset = take_apart(picture, compress_level=1)
    assert choose_bucket(*asset.size, size=64, multiple=4) == (52, 80)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        composed = compose(asset.flatten().resize((80, 52)), asset, None, FilesConfig())
    assert composed.size == (6000, 4000)
    assert composed.getpixel((3000, 2000)) == (20, 90, 200, 255)
    assert composed.getpixel((10, 10))[3] == 0  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]


@pytest.mark.parametrize(("width", "height"), [(64, 64), (8, 8), (6000, 4000), (1, 1000), (333, 257)])
@pytest.mark.parametrize(("size", "multiple"), [(64, 4), (1024, 16), (512, 8)])
def test_a_bucket_has_sides_that_the_base_can_draw_and_about_its_own_area(width: int, height: int, size: int, multiple: int):
    found = choose_bucket(width, height, size=size, multiple=multiple)
    assert all(side % multiple == 0 and side > 0 for side in found)
    assert 0.8 * size**2 < found[0] * found[1] < 1.25 * size**2
    assert (found[1] > found[0]) == (width / height > 1.07)
