"""A catalogue in new styles: every asset done, once, as its own file, or a row that says why not."""

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from stocked_store import INK, Stock, open_drawing, write_catalogue

from pairlora.bases import load_base
from pairlora.catalogue.config import WAYS
from pairlora.catalogue.costs import count_evaluations, estimate_catalogue
from pairlora.catalogue.export import export_catalogue
from pairlora.catalogue.forgetting import find_derived_assets, forget_derived_assets
from pairlora.catalogue.pipeline import CataloguePipeline
from pairlora.catalogue.planning import plan_catalogue
from pairlora.catalogue.runs import open_catalogue, rebuild_catalogue_report
from pairlora.errors import ConfigError, ManifestError, TooManyFailuresError
from pairlora.execution.runs import check_failures, read_record
from pairlora.report import ReportSummary
from pairlora.store.keys import CATALOGUE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return Stock(load_base("embedded"), tmp_path_factory.mktemp("stock"))


def read_files(summary: ReportSummary) -> dict[tuple[str, float], Image.Image]:
    """The styled assets of a run, by asset and strength."""
    table = pd.read_parquet(summary.table_urls["styled"])
    return {(row["asset_id"], row["strength"]): open_picture(row["url"]) for row in table.to_dict("records")}


def open_picture(path: str) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


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
    assert set(styled.file_name) >= {"cat face--reconstruction.png", f"brücke 2--{INK}--1.png"}


def test_out_of_memory_halves_what_is_drawn_together_and_costs_no_asset(stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    predict, drawn = stock.night.base.predict, []

    def predict_within_limits(latents, *told):
        if len(latents) > 2:
            raise torch.OutOfMemoryError(f"no memory for {len(latents)} rows")
        drawn.append(len(latents))
        return predict(latents, *told)

    monkeypatch.setattr(stock.night.base, "predict", predict_within_limits)
    rows = {f"{name}.png": open_drawing(name, 96) for name in ("fox", "doughnut", "teddy-bear")}
    summary = stock.stylize(write_catalogue(tmp_path, rows))
    assert (summary.counts, max(drawn)) == ({"done": 3}, 2)


def test_a_second_run_does_nothing_and_a_picture_taken_away_is_made_again(stock: Stock, tmp_path: Path):
    catalogue = write_catalogue(tmp_path, {"cat.png": open_drawing(), "pizza.png": open_drawing("doughnut")})
    first = stock.stylize(catalogue)
    run = stock.configure(catalogue)
    assert open_catalogue(run).shards == ()

    def find_pizza(summary: ReportSummary) -> Path:
        return Path(pd.read_parquet(summary.table_urls["styled"]).query("asset_id == 'pizza' and strength > 0").url.item())

    find_pizza(first).unlink()
    again = stock.stylize(catalogue)
    assert (again.counts, again.images_drawn) == ({"done": 1, "reused": 1}, 1)
    assert find_pizza(again).is_file()  # under its own digest: alone in a forward it may differ in the last bit


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
    catalogue = write_catalogue(tmp_path, broken | {"cat.png": open_drawing(size=100)})
    lines = catalogue.read_text()
    catalogue.write_text(lines + '\n{"asset_id": "gone", "image": "gone.png", "prompt": "a cat"}')
    summary = stock.stylize(catalogue)
    assert summary.counts == {"done": 1, "failed": 10}
    with pytest.raises(TooManyFailuresError) as too_many:
        check_failures(stock.configure(catalogue), summary)
    assert export_catalogue(stock.store, too_many.value.run_id, tmp_path / "files") == 2
    assert pickle.loads(pickle.dumps(too_many.value)).run_id == summary.run_id
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
    whole = read_files(stock.stylize(write_catalogue(tmp_path / "whole", {f"{name}.png": open_drawing(name) for name in names})))
    for kind in ("asset", "styled", "inversion"):
        for key in stock.store.list_done(kind):
            stock.store.drop_marker(kind, key)
    for half in (names[:2], names[2:]):
        catalogue = write_catalogue(tmp_path / half[0], {f"{name}.png": open_drawing(name) for name in half})
        for key, picture in read_files(stock.stylize(catalogue)).items():
            assert np.abs(np.asarray(picture, int) - np.asarray(whole[key], int)).max() <= 1, key


def test_a_plan_says_the_evaluations_that_drawing_takes(stock: Stock, tmp_path: Path):
    adapters = (INK, "cow-face-gradient")
    for way in WAYS:
        catalogue = write_catalogue(tmp_path / way, {"guitar.png": open_drawing("sailboat", 40)})
        run = stock.configure(catalogue, *adapters, entry={"way": way}, sample={"relative_strengths": (0.0, 0.5, 1.0)})
        estimate = estimate_catalogue(run)
        plan = open_catalogue(run)
        pipeline = CataloguePipeline(run, plan.run_id, stock.night.base, stock.store, stock.night.scorer)
        assert [one.status for one in pipeline.stylize_shard(plan.shards[0])] == ["done"]
        assert pipeline.drawing.rows_computed == estimate.costs[way].total == estimate.evaluations
        assert estimate.costs[way].apart > estimate.costs[way].total


def test_another_adapter_begins_at_the_inversion_of_the_first(stock: Stock, tmp_path: Path):
    catalogue = write_catalogue(tmp_path, {"alarm.png": open_drawing("alarm-clock", 48)})
    stock.stylize(catalogue)
    run = stock.configure(catalogue, INK, "cow-face-gradient")
    plan = open_catalogue(run)
    pipeline = CataloguePipeline(run, plan.run_id, stock.night.base, stock.store, stock.night.scorer)
    pipeline.stylize_shard(plan.shards[0])
    assert pipeline.drawing.rows_computed == count_evaluations(run, 1).styles


def test_what_a_mask_protects_and_a_cut_out_come_through_a_whole_run(stock: Stock, tmp_path: Path):
    picture = open_drawing("rocket", 80).convert("RGBA")
    picture.putalpha(open_drawing("rocket", 80).convert("L").point([255] * 251 + [0] * 5))
    mask = Image.new("L", (80, 80))
    mask.paste(255, (0, 0, 40, 80))
    mask.save(tmp_path / "mask.png")
    summary = stock.stylize(write_catalogue(tmp_path, {"rocket.png": picture}, mask="mask.png"))
    found = read_files(summary)["rocket", 1.0]
    before, after = np.asarray(picture), np.asarray(found)
    assert np.array_equal(after[..., 3], before[..., 3])
    assert np.array_equal(after[:, 40:], before[:, 40:])
    assert (after[:, :40] != before[:, :40]).any()


def test_a_truth_and_the_reconstruction_are_measured_and_shown(stock: Stock, tmp_path: Path):
    open_drawing("fox").save(tmp_path / "truth.png")
    rows = {f"{name}.png": open_drawing(name, 64) for name in ("fox", "pig-face", "teddy-bear", "cow-face", "strawberry")}
    summary = stock.stylize(write_catalogue(tmp_path, rows, truth={"lines": "truth.png"}))
    scores = pd.read_parquet(summary.table_urls["scores"])
    assert set(scores[scores.strength == 0].metric) >= {"reconstruction_psnr", "autoencoder_psnr", "truth_similarity", "structure_ssim"}
    assets = pd.read_parquet(summary.table_urls["assets"]).sort_values("oddness", ascending=False, kind="stable")
    page = Path(summary.report_url).read_text()
    places = [page.index(f"<h3>{name}</h3>") for name in assets.asset_id]
    assert places == sorted(places)
    assert assets.oddness_reason.str.contains("worse than the median").all()


def test_files_are_exported_under_names_that_lead_back(stock: Stock, tmp_path: Path):
    summary = stock.stylize(write_catalogue(tmp_path, {"Füchse im Schnee.png": open_drawing("fox", 32)}))
    count = export_catalogue(stock.store, summary.run_id, tmp_path / "styled")
    names = {f"Füchse im Schnee--{label}.png" for label in ("reconstruction", f"{INK}--1")}
    assert (count, {path.name for path in (tmp_path / "styled").iterdir()}) == (2, names)


def test_ten_thousand_assets_are_planned_in_shards_that_prefect_can_bear(stock: Stock, tmp_path: Path):
    write_catalogue(tmp_path, {"fox.png": open_drawing("fox", 16)})
    rows = [f"asset {number},fox.png,icon {number}" for number in range(10_000)]
    (tmp_path / "many.csv").write_text("asset_id,image,name\n" + "\n".join(rows))
    run = stock.configure(tmp_path / "many.csv", prompt_template="a flat icon of {name}")
    plan = plan_catalogue(run, stock.store, stock.night.base.digest)
    assert len(plan.jobs) == len({job.fingerprint for job in plan.jobs}) == 10_000
    assert len(plan.shards) == len({shard.name for shard in plan.shards}) <= 1000
    assert plan.jobs[7].asset.prompt == "a flat icon of icon 7"


def test_every_problem_of_a_catalogue_is_said_with_its_remedy(stock: Stock, tmp_path: Path):
    lines = [
        "asset_id,image,prompt,truth",
        "a/b,fox.png,fox,",
        "Fox,fox.png,,",
        "fox,../fox.png,fox,",
        'c,fox.png,fox,"{""ink"": 3}"',
    ]
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    with pytest.raises(ManifestError) as refused:
        open_catalogue(stock.configure(tmp_path / "bad.csv"))
    said = str(refused.value)
    for words in ("cannot be a file's name", "row 2, prompt: is empty", "repeats row 2", "leaves the manifest's folder", "is not a URL"):
        assert words in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fox-high-contrasts", "did you mean 'fox-high-contrast'"),
        ("gone/fox", "has no run 'gone'"),
        ("0123456789abcdef", "is no fingerprint and no pair"),
    ],
)
def test_an_adapter_that_is_not_there_is_refused_with_the_nearest_that_is(stock: Stock, tmp_path: Path, name: str, words: str):
    catalogue = write_catalogue(tmp_path, {"fox.png": open_drawing("fox", 16)})
    with pytest.raises(ConfigError, match=words):
        open_catalogue(stock.configure(catalogue, name))


def test_an_adapter_is_found_by_fingerprint_and_by_run_and_pair(stock: Stock, tmp_path: Path):
    catalogue = write_catalogue(tmp_path, {"fox.png": open_drawing("fox", 16)})
    fingerprint = pd.read_parquet(stock.pairs.table_urls["pairs"]).set_index("pair_id").fingerprint[INK]
    for name in (fingerprint[:8], fingerprint, f"{stock.pairs.run_id}/{INK}"):
        (adapter,) = plan_catalogue(stock.configure(catalogue, name), stock.store, stock.night.base.digest).adapters
        assert (adapter.fingerprint, adapter.label) == (fingerprint, INK)


def test_a_catalogue_hides_no_run_of_pairs(stock: Stock, tmp_path: Path):
    summary = stock.stylize(write_catalogue(tmp_path, {"hamburger.png": open_drawing(size=24)}))
    assert summary.run_id in stock.store.list_runs(CATALOGUE)
    assert read_record(stock.store).run_id == stock.pairs.run_id
    with pytest.raises(ConfigError, match="run over a catalogue"):
        read_record(stock.store, summary.run_id)
    assert rebuild_catalogue_report(stock.store, summary.run_id).counts == summary.counts


def test_a_forgotten_asset_leaves_no_picture_and_its_neighbour_stays(stock: Stock, tmp_path: Path):
    summary = stock.stylize(write_catalogue(tmp_path, {"fox.png": open_drawing("fox", 20), "pig.png": open_drawing("pig-face", 20)}))
    files = pd.read_parquet(summary.table_urls["styled"]).set_index("asset_id").url
    derived = find_derived_assets(stock.store, hashlib.sha256((tmp_path / "fox.png").read_bytes()).hexdigest(), set())
    forget_derived_assets(stock.store, derived)
    assert [Path(url).exists() for url in files["fox"]] == [False, False]
    assert [Path(url).exists() for url in files["pig"]] == [True, True]
    table = pd.read_parquet(summary.table_urls["assets"])
    assert table.asset_id.tolist() == ["pig"]
    assert "fox.png" not in Path(summary.report_url).read_text()
    assert len(derived.inversions) == 1
