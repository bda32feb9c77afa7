"""Pictures on their way out: pairs cut to one scene, PNG bytes, thumbnails."""

import io

import numpy as np
import pytest
from PIL import Image
from scenes import decode, difference, draw_noise, draw_scene, make_swapped_profile

from pairlora.errors import PictureError
from pairlora.images import encode_png, fit_pair, make_thumbnail


def test_a_pair_of_one_aspect_ratio_shows_the_same_scene_at_any_resolution():
    content, style = fit_pair(draw_scene(300, 200), draw_scene(150, 100), 64)
    assert content.size == style.size == (64, 64)
    assert difference(content, style) <= 3


def test_a_pair_is_cropped_to_the_centre():
    content, _ = fit_pair(draw_scene(300, 200), draw_scene(300, 200), 100)
    red = np.asarray(content)[50, :, 0].astype(int)
    assert abs(red[0] - 255 / 6) < 4
    assert abs(red[-1] - 255 * 5 / 6) < 4


def test_a_pair_of_different_shapes_is_refused_with_both_sizes():
    with pytest.raises(PictureError, match=r"content has 300x200 pixels, style 200x200; .* crop one"):
        fit_pair(draw_scene(300, 200), draw_scene(200, 200), 64)


def test_a_pair_whose_shapes_differ_by_rounding_is_accepted():
    assert fit_pair(draw_scene(1024, 1024), draw_scene(1000, 1024), 32)[1].size == (32, 32)
    with pytest.raises(PictureError):
        fit_pair(draw_scene(1024, 1024), draw_scene(980, 1024), 32)


def test_equal_pictures_give_equal_png_bytes_whatever_they_carry():
    scene = draw_scene(40, 30)
    other = scene.copy()
    other.info = {"icc_profile": make_swapped_profile(), "dpi": (72, 72)}
    first = encode_png(scene, {"prompt": "a dog", "author": "née"})
    assert encode_png(other, {"author": "née", "prompt": "a dog"}) == first


def test_png_text_comes_back():
    text = {"prompt": "ein Hund, 犬", "seed": "1"}
    with Image.open(io.BytesIO(encode_png(draw_scene(8, 8), text))) as opened:
        assert opened.info == text
    with Image.open(io.BytesIO(encode_png(draw_scene(8, 8)))) as opened:
        assert opened.info == {}


def test_png_keeps_every_pixel():
    noise = draw_noise(33, 21)
    assert difference(decode(encode_png(noise)), noise) == 0


def test_a_thumbnail_of_the_worst_picture_stays_below_a_hundred_kilobytes():
    data = make_thumbnail(draw_noise(512, 512))
    assert len(data) < 100_000
    assert decode(data).size == (256, 256)


@pytest.mark.parametrize(("size", "expected"), [((1024, 512), (256, 128)), ((100, 50), (100, 50)), ((5000, 4), (256, 1))])
def test_a_thumbnail_keeps_the_aspect_ratio_and_never_grows(size: tuple[int, int], expected: tuple[int, int]):
    assert decode(make_thumbnail(Image.new("RGB", size))).size == expected
