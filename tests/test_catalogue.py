"""A catalogue in new styles: every asset done, once, as its own file, or a row that says why not."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from stocked_store import INK, Stock, open_drawing, write_catalogue

from pairlora.bases import load_base
from pairlora.catalogue.runs import open_catalogue

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return Stock(load_base("embedded"), tmp_path_factory.mktemp("stock"))


def read_files(stock: Stock, summary) -> dict[tuple[str, float], Image.Image]:
    """The styled assets of a run, by asset and strength."""
    table = pd.read_parquet(summary.table_urls["styled"])
    return {(row.asset_id, row.strength): Image.open(row.url) for row in table.itertuples()}


def test_each_asset_comes_back_at_its_size_in_every_style_and_strength(stock: Stock, tmp_path: Path):
    rows = {"cat face.png": open_drawing(), "brücke 2.png": open_drawing("doughnut").resize((300, 150)), "dot.png": open_drawing(size=8)}
    summary = stock.stylize(write_catalogue(tmp_path, rows), INK, "cow-face-gradient")
    styled = pd.read_parquet(summary.table_urls["styled"])
    assert summary.counts == {"done": 3}
    assert len(styled) == 3 * 2 * 2
    assert {name: sizes for (name, *sizes) in styled[["asset_id", "width", "height"]].drop_duplicates().itertuples(index=False)} == {
        "cat face": [256, 256],
        "brücke 2": [300, 150],
        "dot": [8, 8],
    }
    assert set(styled.file_name) >= {"cat face--reconstruction.png", f"brücke 2--{INK}--2.5.png"}


def test_a_second_run_does_nothing_and_a_picture_taken_away_is_made_again(stock: Stock, tmp_path: Path):
    catalogue = write_catalogue(tmp_path, {"cat.png": open_drawing(), "pizza.png": open_drawing("doughnut")})
    first = stock.stylize(catalogue)
    run = stock.configure(catalogue)
    assert open_catalogue(run).shards == ()
    url = pd.read_parquet(first.table_urls["styled"]).query("asset_id == 'pizza' and strength > 0").url.item()
    Path(url).unlink()
    again = stock.stylize(catalogue)
    assert (again.counts, again.images_drawn) == ({"done": 1, "reused": 1}, 1)
    assert Path(url).is_file()


def test_broken_files_are_rows_and_harm_no_other(stock: Stock, tmp_path: Path):
    good = io.BytesIO()
    open_drawing().save(good, "PNG")
    gif = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    broken = {f"cut-{size}.png": good.getvalue()[:size] for size in (0, 7, 40, 200, 1000)}
    broken |= {
        "words.png": b"no picture",
        "moving.png": gif.getvalue(),
        "photo.jpg": b"\xff\xd8\xff\xe0junk",
        "a.webp": b"RIFF....WEBPVP8 ",
    }
    catalogue = write_catalogue(tmp_path, broken | {"cat.png": open_drawing()})
    lines = catalogue.read_text()
    catalogue.write_text(lines + '\n{"asset_id": "gone", "image": "gone.png", "prompt": "a cat"}')
    summary = stock.stylize(catalogue)
    assert summary.counts == {"done": 1, "failed": 10}
    assert {one.pair_id: one.error_class for one in summary.failed} == dict.fromkeys(
        ("cut-40", "cut-200", "cut-1000", "photo", "a"), "CorruptPictureError"
    ) | {
        "cut-0": "EmptyPictureError",
        "cut-7": "NotAPictureError",
        "words": "NotAPictureError",
        "moving": "NotAPictureError",
        "gone": "MissingPictureError",
    }


def test_two_halves_of_a_catalogue_are_the_whole(stock: Stock, tmp_path: Path):
    names = ("hamburger", "doughnut", "alarm-clock", "pig-face")
    whole = read_files(stock, stock.stylize(write_catalogue(tmp_path / "whole", {f"{name}.png": open_drawing(name) for name in names})))
    other = Stock.__new__(Stock)
    other.night, other.store = stock.night, stock.store
    for kind in ("asset", "styled", "inversion"):
        for key in stock.store.list_done(kind):
            stock.store.drop_marker(kind, key)
    for half in (names[:2], names[2:]):
        catalogue = write_catalogue(tmp_path / half[0], {f"{name}.png": open_drawing(name) for name in half})
        for key, picture in read_files(stock, stock.stylize(catalogue)).items():
            assert np.abs(np.asarray(picture, int) - np.asarray(whole[key], int)).max() <= 1, key
