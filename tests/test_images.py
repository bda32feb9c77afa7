"""Pictures: what is refused and why, and what the others look like in RGB."""

import contextlib
import hashlib
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo
from scenes import LIMITS, decode, difference, draw_noise, draw_scene, make_swapped_profile

from pairlora.config import PictureLimits
from pairlora.errors import (
    AnimatedPictureError,
    CorruptPictureError,
    EmptyPictureError,
    MissingPictureError,
    NotAPictureError,
    PictureError,
    PictureTooLargeError,
)
from pairlora.images import read_picture


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def make_png(width: int, height: int, body: bytes = b"") -> bytes:
    """A grey PNG with a true header and no more pixels than `body` holds."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (make_chunk(b"IHDR", header), make_chunk(b"IDAT", zlib.compress(body)), make_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_formats_come_back_as_they_were(kind: str, options: dict):
    scene = draw_scene(31, 17)
    found = decode(encode(scene, kind, **options))
    assert found.mode == "RGB"
    assert difference(found, scene) == 0


def test_jpeg_comes_back_nearly_as_it_was():
    scene = draw_scene(64, 48)
    assert difference(decode(encode(scene, "JPEG", quality=95)), scene) < 12


def test_a_phones_jpeg_with_a_second_picture_inside_is_its_first_picture():
    scene = draw_scene(32, 32)
    data = encode(scene, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32))], quality=95)
    with Image.open(io.BytesIO(data)) as opened:
        assert getattr(opened, "n_frames", 1) == 2
    assert difference(decode(data), scene) < 12


def test_no_bytes_are_an_empty_picture():
    with pytest.raises(EmptyPictureError, match=r"dog\.png has no bytes"):
        decode(b"")


def test_text_named_png_is_no_picture():
    with pytest.raises(NotAPictureError, match=r"dog\.png is not a picture; save it as PNG, JPEG, WebP, TIFF or BMP"):
        decode(b"this is not a picture, whatever its name says\n")


def test_a_gif_is_told_which_formats_are_allowed():
    with pytest.raises(NotAPictureError, match="is a GIF file; save it as PNG, JPEG"):
        decode(encode(draw_scene(8, 8), "GIF"))


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "PCX", "DIB"])
def test_formats_that_are_not_on_the_list_are_refused(kind: str):
    with pytest.raises(NotAPictureError):
        decode(encode(draw_scene(16, 16), kind))


@pytest.mark.parametrize(("kind", "share"), [("PNG", 0.5), ("PNG", 0.97), ("JPEG", 0.5), ("WEBP", 0.5), ("BMP", 0.5), ("TIFF", 0.5)])
def test_a_truncated_picture_is_corrupt(kind: str, share: float):
    data = encode(draw_noise(64, 64), kind)
    with pytest.raises(CorruptPictureError, match="cannot be decoded to its end"):
        decode(data[: int(len(data) * share)])


def test_a_damaged_byte_in_a_png_is_found_by_its_checksum():
    data = bytearray(encode(draw_noise(64, 64)))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(CorruptPictureError):
        decode(bytes(data))


def test_the_magic_bytes_alone_are_a_corrupt_picture():
    for magic in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBP", b"II*\x00", b"BM"):
        with pytest.raises(CorruptPictureError):
            decode(magic)


def test_noise_behind_magic_bytes_raises_nothing_but_picture_errors():
    random = np.random.default_rng(1)
    heads = [encode(draw_scene(20, 20), kind)[:60] for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")]
    for number in range(200):
        with contextlib.suppress(PictureError):  # some noise makes a picture
            decode(heads[number % 5] + random.bytes(300))


def test_pillow_is_not_told_to_accept_truncated_pictures():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_bomb_is_refused_by_its_header_without_memory(side: int):
    data = make_png(side, side)
    tracemalloc.start()
    with pytest.raises(PictureTooLargeError, match=rf"{side}x{side} pixels, more than 50000000; make it smaller"):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_webp_bomb_is_refused_by_its_header():
    size = (16_000 - 1).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size
    with pytest.raises((PictureTooLargeError, CorruptPictureError)):
        decode(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_a_limit_above_pillows_own_is_honoured_without_a_warning():
    with pytest.raises(CorruptPictureError):
        decode(make_png(10_000, 10_000, bytes(100)), PictureLimits(max_pixels=200_000_000))


def test_the_pixel_limit_is_inclusive():
    data = encode(draw_scene(10, 10))
    assert decode(data, PictureLimits(max_pixels=100)).size == (10, 10)
    with pytest.raises(PictureTooLargeError):
        decode(data, PictureLimits(max_pixels=99))


def test_the_byte_limit_is_inclusive():
    data = encode(draw_scene(10, 10))
    assert decode(data, PictureLimits(max_bytes=len(data))).size == (10, 10)
    with pytest.raises(PictureTooLargeError, match=r"raise pictures\.max_bytes"):
        decode(data, PictureLimits(max_bytes=len(data) - 1))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(kind: str):
    frames = [draw_scene(16, 16), Image.new("RGB", (16, 16), "red")]
    with pytest.raises(AnimatedPictureError, match="several frames or pages; export the one that is meant"):
        decode(encode(frames[0], kind, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_shown_upright(kind: str, orientation: int):
    scene = draw_scene(48, 32)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # EXIF 6 is shown turned clockwise, so it was stored turned against it
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene.transpose(undo[orientation]) if orientation in undo else scene
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encode(stored, kind, exif=exif))
    assert found.size == (48, 32)
    assert difference(found, scene) < 40


def test_damaged_exif_does_not_cost_the_picture():
    data = encode(draw_scene(16, 16), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert decode(data).size == (16, 16)


def test_transparency_lies_on_white():
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    found = decode(encode(image))
    assert [found.getpixel((x, 0)) for x in range(3)] == [(255, 0, 0), (255, 255, 255), (127, 127, 127)]


def test_grey_with_alpha_lies_on_white():
    image = Image.new("LA", (2, 1), (10, 255))
    image.putpixel((1, 0), (10, 0))
    found = decode(encode(image))
    assert [found.getpixel((x, 0)) for x in range(2)] == [(10, 10, 10), (255, 255, 255)]


def test_a_palette_with_a_transparent_entry_lies_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 200, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    for transparency in (1, b"\xff\x00"):
        found = decode(encode(image, transparency=transparency))
        assert [found.getpixel((x, 0)) for x in range(2)] == [(0, 200, 0), (255, 255, 255)]


def test_a_palette_gives_its_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 200, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    assert [decode(encode(image)).getpixel((x, 0)) for x in range(2)] == [(0, 200, 0), (0, 0, 200)]


@pytest.mark.parametrize(("mode", "key"), [("RGB", (7, 8, 9)), ("L", 7), ("1", 0)])
def test_a_transparent_colour_lies_on_white(mode: str, key: int | tuple[int, ...]):
    assert decode(encode(Image.new(mode, (2, 2), key), transparency=key)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(kind: str):
    values = np.array([[0, 257, 128 * 257, 65535, 65535 - 128, 300, 129, 128]], dtype=np.uint16)
    found = np.asarray(decode(encode(Image.fromarray(values), kind)))[0, :, 0]
    assert found.tolist() == [0, 1, 128, 255, 255, 1, 1, 0]


def test_a_transparent_sixteen_bit_value_lies_on_white():
    values = np.array([[1000, 40000]], dtype=np.uint16)
    data = bytearray(encode(Image.fromarray(values)))
    place = data.index(b"IDAT") - 4
    found = decode(bytes(data[:place] + make_chunk(b"tRNS", struct.pack(">H", 1000)) + data[place:]))
    assert [found.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (156, 156, 156)]


def test_integers_beyond_sixteen_bits_are_refused():
    image = Image.fromarray(np.array([[0, 70_000]], dtype=np.int32))
    with pytest.raises(PictureError, match="more than 16 bits; save it with 8 or 16"):
        decode(encode(image, "TIFF"))


def test_floating_point_is_refused():
    with pytest.raises(PictureError, match="floating-point"):
        decode(encode(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"))


def test_colours_that_cannot_be_converted_are_refused_by_name():
    with pytest.raises(PictureError, match="mode LAB; save it as RGB"):
        decode(encode(Image.new("LAB", (4, 4)), "TIFF"))


def test_one_bit_gives_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 255)
    assert [decode(encode(image)).getpixel((x, 0)) for x in range(2)] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_gives_its_colours(kind: str):
    found = np.asarray(decode(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), kind)))
    assert np.abs(found.astype(int) - (255, 0, 0)).max() < 6


def test_an_embedded_profile_is_converted_to_srgb():
    found = np.asarray(decode(encode(Image.new("RGB", (4, 4), (200, 20, 60)), icc_profile=make_swapped_profile())))
    assert np.abs(found.astype(int) - (20, 200, 60)).max() <= 2


def test_an_embedded_profile_leaves_transparency_alone():
    image = Image.new("RGBA", (1, 1), (200, 20, 60, 0))
    assert decode(encode(image, icc_profile=make_swapped_profile())).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_profile_that_does_not_fit_is_ignored(mode: str):
    image = Image.new(mode, (4, 4), 50)
    profile = b"nonsense" if mode == "RGB" else make_swapped_profile()
    assert decode(encode(image, icc_profile=profile)).getpixel((0, 0)) == decode(encode(image)).getpixel((0, 0))


def test_a_decoded_picture_carries_no_metadata():
    info = PngInfo()
    info.add_text("author", "somebody")
    assert decode(encode(draw_scene(8, 8), pnginfo=info, dpi=(72, 72))).info == {}


def test_a_picture_is_read_with_the_digest_of_its_bytes(tmp_path: Path):
    path = tmp_path / "dog.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + make_png(2, 1, b"\x00\x00\xff")[8:])
    picture = read_picture(str(path), LIMITS)
    assert picture.url == str(path)
    assert picture.image.getpixel((1, 0)) == (255, 255, 255)
    assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_picture_is_read_from_any_file_system():
    fsspec.filesystem("memory").pipe("/plates/dog.png", encode(draw_scene(8, 8)))
    assert read_picture("memory://plates/dog.png", LIMITS).image.size == (8, 8)


def test_a_missing_picture_is_named(tmp_path: Path):
    with pytest.raises(MissingPictureError, match=r"nowhere\.png: there is no such file; check the URL"):
        read_picture(str(tmp_path / "nowhere.png"), LIMITS)


def test_a_folder_is_a_missing_picture(tmp_path: Path):
    with pytest.raises(MissingPictureError):
        read_picture(str(tmp_path), LIMITS)


def test_an_empty_file_is_an_empty_picture(tmp_path: Path):
    (tmp_path / "dog.png").touch()
    with pytest.raises(EmptyPictureError):
        read_picture(str(tmp_path / "dog.png"), LIMITS)


def test_a_huge_file_is_refused_by_its_size_alone(tmp_path: Path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PictureTooLargeError):
        read_picture(str(path), LIMITS)
