"""Large assets in tiles: they cover the asset, meet without a seam, and keep what one small drawing would lose."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from stocked_store import INK, PROMPT, Stock, open_drawing, write_catalogue

from pairlora.bases import load_base
from pairlora.catalogue.canvases import Canvas, choose_canvas
from pairlora.catalogue.config import TilesConfig
from pairlora.catalogue.costs import estimate_catalogue
from pairlora.catalogue.measures import measure_psnr
from pairlora.catalogue.pipeline import CataloguePipeline
from pairlora.catalogue.runs import open_catalogue
from pairlora.catalogue.work import AssetWork


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return Stock(load_base("embedded"), tmp_path_factory.mktemp("stock"))


@pytest.mark.parametrize(("width", "height"), [(6000, 4000), (4000, 6000), (1100, 1024), (3000, 700), (2048, 2048)])
@pytest.mark.parametrize(("size", "multiple"), [(64, 8), (512, 8), (1024, 16)])
@pytest.mark.parametrize("most", [2, 9, 40])
def test_tiles_cover_the_canvas_and_overlap(width: int, height: int, size: int, multiple: int, most: int):
    overlap = 0.25
    canvas = choose_canvas(width, height, size=size, multiple=multiple, tiles=TilesConfig(most=most, overlap=overlap))
    covered = np.zeros((canvas.height, canvas.width), int)
    for left, top, right, bottom in canvas.boxes:
        assert 0 <= left < right <= canvas.width
        assert 0 <= top < bottom <= canvas.height
        assert all(side % multiple == 0 for side in (left, top, right, bottom))
        covered[top:bottom, left:right] += 1
    assert covered.all()
    assert len(canvas.boxes) <= most
    if len(canvas.boxes) > 1:
        assert (canvas.width <= width, canvas.height <= height, canvas.piece) == (True, True, (size, size))
        assert abs(canvas.width / canvas.height / (width / height) - 1) <= multiple / min(canvas.width, canvas.height)
        beside = [(one, two) for one in canvas.boxes for two in canvas.boxes if one[1] == two[1] and one[0] < two[0] < one[2]]
        assert all(one[2] - two[0] >= overlap * size - multiple for one, two in beside)


@pytest.mark.parametrize(("most", "pieces"), [(1, 1), (3, 1), (4, 4), (8, 4), (9, 9), (100, 100)])
def test_as_many_tiles_are_used_as_are_allowed(most: int, pieces: int):
    canvas = choose_canvas(6400, 6400, size=64, multiple=8, tiles=TilesConfig(most=most))
    assert len(canvas.boxes) == pieces


@pytest.mark.parametrize(("width", "height"), [(64, 64), (8, 8), (1, 1000), (60, 300)])
def test_an_asset_that_tiles_would_only_enlarge_is_one_piece(width: int, height: int):
    canvas = choose_canvas(width, height, size=64, multiple=8, tiles=TilesConfig(most=1000))
    assert len(canvas.boxes) == 1


def test_what_is_cut_and_joined_is_the_picture():
    canvas = choose_canvas(900, 600, size=64, multiple=8, tiles=TilesConfig(most=60))
    picture = canvas.fit(open_drawing("rocket", 600))
    found = canvas.join(canvas.cut(picture))
    assert len(canvas.boxes) > 40
    assert np.array_equal(np.asarray(found), np.asarray(picture))


def test_tiles_of_different_colours_cross_over_in_a_straight_line():
    canvas = Canvas(96, 64, ((0, 0, 64, 64), (32, 0, 96, 64)))
    joined = np.asarray(canvas.join([Image.new("RGB", (64, 64), colour) for colour in ("#000000", "#ffffff")]), float)[..., 0]
    assert (joined[:, :32] == 0).all()
    assert (joined[:, 64:] == 255).all()
    steps = np.diff(joined[0, 32:64])
    assert (steps > 0).all()
    assert steps.max() - steps.min() <= 1


@pytest.mark.slow
def test_tiles_keep_the_detail_that_one_drawing_loses(stock: Stock, tmp_path: Path):
    picture = Image.new("RGB", (192, 128), "white")
    for index, name in enumerate(("hamburger", "fox", "doughnut", "rocket", "pig-face", "alarm-clock")):
        picture.paste(open_drawing(name, 64), (64 * (index % 3), 64 * (index // 3)))
    lost = {}
    for most in (1, 15):
        catalogue = write_catalogue(tmp_path, {"sheet.png": picture, "small.png": open_drawing("teddy-bear", 64)})
        summary = stock.stylize(catalogue, tiles={"most": most}, evaluate={"perceptual": False})
        table = pd.read_parquet(summary.table_urls["styled"])
        assert summary.counts == {"done": 2}
        rows = {row["strength"]: row for row in table.to_dict("records") if row["asset_id"] == "sheet"}
        with Image.open(rows[0.0]["url"]) as found:
            lost[most] = measure_psnr(found.convert("RGB"), picture)
        assert (rows[1.0]["width"], rows[1.0]["height"]) == (192, 128)
    assert lost[15] > lost[1] + 3
    assert open_catalogue(stock.configure(catalogue, tiles={"most": 15}, evaluate={"perceptual": False})).shards == ()


@pytest.mark.slow
def test_tiles_see_the_same_noise_where_they_overlap(stock: Stock, tmp_path: Path):
    run = stock.configure(write_catalogue(tmp_path, {"wide.png": open_drawing(size=128)}), entry={"way": "noise"}, tiles={"most": 9})
    plan = open_catalogue(run)
    pipeline = CataloguePipeline(run, plan.run_id, stock.night.base, stock.store, stock.night.scorer)
    (job,) = plan.jobs
    work = AssetWork(job)
    pipeline._open(work, plan.adapters)
    first, second, *_ = (pipeline.drawing.starts._cut_noise(piece) for piece in work.pieces)
    shift = work.pieces[1].box[0] // 8
    assert len(work.pieces) == 9
    assert torch.equal(first[:, :, shift:], second[:, :, :-shift])


@pytest.mark.slow
def test_tiles_show_what_they_are_told_to_and_an_asset_in_one_piece_its_own_prompt(stock: Stock, tmp_path: Path):
    pictures = {"large.png": open_drawing(size=128), "small.png": open_drawing(size=64)}
    run = stock.configure(write_catalogue(tmp_path, pictures), tiles={"most": 9, "prompt": "a flat icon"})
    plan = open_catalogue(run)
    pipeline = CataloguePipeline(run, plan.run_id, stock.night.base, stock.store, stock.night.scorer)
    works = [AssetWork(job) for job in plan.jobs]
    for work in works:
        pipeline._open(work, plan.adapters)
    large, small = ({piece.request_plain(0).prompt for piece in work.pieces} for work in works)
    assert (large, small) == ({"a flat icon"}, {PROMPT})
    (styled,) = {piece.request(works[0].planned[1], 0).styles[0].prompt for piece in works[0].pieces}
    assert styled == "a flat icon, in bold black ink lines"
    told = pipeline._describe(works[0], works[0].planned[1])
    assert (told["prompt"], told["style_prompt"]) == ("a flat icon", styled)  # what the file says is what it was drawn under


@pytest.mark.slow
def test_a_plan_says_the_least_and_the_most_that_tiles_may_take(stock: Stock, tmp_path: Path):
    catalogue = write_catalogue(tmp_path, {"small.png": open_drawing(size=64), "large.png": open_drawing(size=128)})
    estimate = estimate_catalogue(stock.configure(catalogue, INK, tiles={"most": 9}))
    each = estimate.costs["invert"].total
    assert (estimate.evaluations, estimate.most_evaluations) == (2 * each, 18 * each)
    assert f"{2 * each:,} to {18 * each:,}" in estimate.describe()["left"]


def test_tiles_that_begin_at_noise_are_refused(stock: Stock, tmp_path: Path):
    control = {"way": "control", "control": {"name": "net", "start": "noise"}}
    with pytest.raises(ValidationError, match=r"set entry\.control\.start to timestep"):
        stock.configure(tmp_path / "none.jsonl", entry=control, tiles={"most": 4})
