"""The laws of the report's tables: what the store holds is what they say, and nothing else is needed to read them."""

import shutil
from datetime import timedelta
from pathlib import Path
from weakref import ref

import duckdb
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pyarrow import parquet
from staged_run import PROMPTS, RUN_ID, SEEDS, STARTED, STRENGTHS, TRAIN, Staged, draw_picture, score_picture, stage_night, stage_run

from pairlora.errors import StoreError
from pairlora.execution.runs import rebuild_report
from pairlora.measures import bootstrap_mean, recommend_strength
from pairlora.records import (
    Outcome,
    RunRecord,
)
from pairlora.report import ReportSummary, collection
from pairlora.report.collection import PairContents, collect_run
from pairlora.report.tables import SCHEMAS, Table
from pairlora.report.thumbnails import shrink
from pairlora.store.parts import encode_records


@pytest.fixture
def empty(tmp_path: Path) -> Staged:
    """A run without pairs."""
    return Staged(tmp_path)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """A run whose configuration may be changed."""
    return stage_run(tmp_path_factory.mktemp("staged"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ReportSummary:
    """The report of a run that no test changes."""
    return stage_run(tmp_path_factory.mktemp("run")).build()


def query(sql: str) -> pd.DataFrame:
    relation = duckdb.sql(sql)
    assert relation is not None
    return relation.df()


# Tables


@pytest.mark.parametrize("name", SCHEMAS)
def test_pandas_and_duckdb_read_the_same_rows_without_this_project(built: ReportSummary, name: str):
    url = built.table_urls[name]
    assert query(f"select count(*) as n from '{url}'")["n"].tolist() == [len(pd.read_parquet(url))]
    assert query(f"describe select * from '{url}'")["column_name"].tolist() == SCHEMAS[name].names


def test_tables_have_one_row_for_each_thing(built: ReportSummary):
    urls = built.table_urls
    pictures = 2 * len(PROMPTS) * len(SEEDS) * len(STRENGTHS)
    without_truth = pictures * 6
    with_truth = len(SEEDS) * len(STRENGTHS) * 2
    counts = {name: len(pd.read_parquet(url)) for name, url in urls.items()}
    counts.pop("summaries")
    assert counts == {"pairs": 5, "attempts": 3, "images": pictures, "scores": without_truth + with_truth, "losses": 4, "reviews": 0}


def test_each_row_of_the_manifest_has_its_status_and_reason(built: ReportSummary):
    pairs = pd.read_parquet(built.table_urls["pairs"]).set_index("row")
    assert pairs["status"].to_dict() == {1: "done", 2: "done", 3: "failed", 4: "invalid", 5: "failed"}
    assert pairs["pair_id"].to_dict() == {1: "dog", 2: "cat", 3: "cow", 4: "dog", 5: "owl"}
    assert pairs["error_class"].dropna().to_dict() == {3: "DivergedError", 4: "ManifestError", 5: "MissingPictureError"}
    assert "repeats row 1" in pairs.loc[4, "error_message"]


def test_a_pair_says_how_it_was_trained(built: ReportSummary):
    pair = pd.read_parquet(built.table_urls["pairs"]).set_index("row").loc[1]
    assert (pair["content_loss"], pair["style_loss"]) == (0.25, 0.125)
    assert (pair["steps"], pair["learning_rate"]) == (TRAIN.steps, TRAIN.learning_rate)
    assert Path(pair["adapter_url"]).is_file()
    assert pair["started_at"] == pd.Timestamp(STARTED)
    assert str(pair["started_at"].tz) == "UTC"


def test_tables_state_their_version_compression_and_pictures(built: ReportSummary):
    urls = built.table_urls
    for name, url in urls.items():
        file = parquet.ParquetFile(url)
        assert file.schema_arrow.metadata[b"schema_version"] == b"1"
        assert (b"huggingface" in file.schema_arrow.metadata) == (name in ("pairs", "images"))
        assert {file.metadata.row_group(group).column(0).compression for group in range(file.num_row_groups)} <= {"ZSTD"}
    assert parquet.ParquetFile(urls["pairs"]).schema_arrow.metadata[b"huggingface"].count(b'"Image"') == 2


def test_tables_with_pictures_are_cut_into_groups_of_a_hundred_rows(empty: Staged):
    for row in range(1, 131):
        empty.unplanned.append(Outcome.model_validate({"pair_id": f"p{row}", "row": row, "status": "invalid"}))
    metadata = parquet.ParquetFile(empty.build().table_urls["pairs"]).metadata
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [100, 30]


def test_thumbnails_of_small_pictures_lose_nothing(built: ReportSummary, tmp_path: Path):
    images = pd.read_parquet(built.table_urls["images"])
    record = images.iloc[0]
    (tmp_path / "thumbnail.png").write_bytes(record["thumbnail"]["bytes"])
    with Image.open(tmp_path / "thumbnail.png") as shown, Image.open(record["url"]) as drawn:
        assert np.array_equal(np.asarray(shown), np.asarray(drawn))


def test_thumbnails_of_large_pictures_are_small_jpegs():
    thumbnail = shrink(draw_picture("large", side=700).resize((700, 350)))
    assert (thumbnail.suffix, thumbnail.width, thumbnail.height) == ("jpg", 256, 128)
    assert thumbnail.data.startswith(b"\xff\xd8")
    assert len(thumbnail.data) < 100_000


def test_an_empty_run_gives_empty_tables_with_the_same_columns(empty: Staged):
    summary = empty.build()
    assert summary.counts == {}
    for name, url in summary.table_urls.items():
        table = parquet.read_table(url)
        assert table.num_rows == 0
        assert table.schema.equals(SCHEMAS[name])
    assert "<b>0</b> pairs" in Path(summary.report_url).read_text()


# Summaries


def compute_gains(pair_id: str, metric: str, prompt: str, strength: float) -> list[float]:
    """(s_styled - s_unstyled) / (1 - s_unstyled) at equal prompt and seed, by hand."""
    gains = []
    for seed in SEEDS:
        styled, unstyled = (score_picture(pair_id, prompt, seed, one)[metric] for one in (strength, 0.0))
        assert styled is not None
        assert unstyled is not None
        gains.append((styled - unstyled) / (1 - unstyled))
    return gains


@pytest.mark.parametrize(("gain", "metric"), [("truth_gain", "truth_similarity"), ("truth_perceptual_gain", "truth_perceptual_similarity")])
def test_gains_are_paired_with_the_unstyled_picture_of_the_same_seed(built: ReportSummary, gain: str, metric: str):
    summaries = pd.read_parquet(built.table_urls["summaries"])
    found = summaries.query(f"metric == '{gain}'").set_index(["pair_id", "prompt", "strength"])[["value", "low", "high", "n"]]
    assert sorted(found.index) == [("cat", prompt, strength) for prompt in ("", PROMPTS[0]) for strength in STRENGTHS[1:]]
    for (_, _, strength), row in zip(found.index, found.to_numpy(), strict=True):
        by_hand = compute_gains("cat", metric, PROMPTS[0], strength)
        assert row == pytest.approx([np.mean(by_hand), min(by_hand), max(by_hand), len(SEEDS)])


def test_diversity_is_the_spread_of_the_seeds_over_that_of_the_unstyled_ones(built: ReportSummary):
    summaries = pd.read_parquet(built.table_urls["summaries"])
    found = summaries.query("metric == 'diversity' and pair_id == 'dog'").set_index(["prompt", "strength"])
    for strength in STRENGTHS[1:]:
        spreads = {
            prompt: [sum(score_picture("dog", prompt, seed, one)["spread"] or 0 for seed in SEEDS) for one in (strength, 0.0)]
            for prompt in PROMPTS
        }
        ratios = [styled / unstyled for styled, unstyled in spreads.values()]
        assert [found.value[prompt, strength] for prompt in PROMPTS] == pytest.approx(ratios)
        assert found.value["", strength] == pytest.approx(np.mean(ratios))
        assert found.n["", strength] == len(PROMPTS)


def test_means_over_all_prompts_are_those_of_the_scores(built: ReportSummary):
    urls = built.table_urls
    joined = query(
        f"""select s.value, m.value as mean, s.n, m.n as count from '{urls["summaries"]}' s join (
            select pair_id, strength, metric, avg(value) as value, count(value) as n
            from '{urls["scores"]}' join '{urls["images"]}' using (pair_id, image_id) group by all) m
        using (pair_id, strength, metric) where s.prompt = ''"""
    )
    assert len(joined) == 2 * (6 * 3 - 1) + 2 * 3
    assert joined["value"].to_numpy() == pytest.approx(joined["mean"].to_numpy())
    assert joined["n"].tolist() == joined["count"].tolist()


def test_intervals_hold_their_means_and_one_picture_has_none(empty: Staged):
    job = empty.add_job(1, "dog", prompts=PROMPTS[:1])
    empty.settle(job)
    empty.add_image(job, PROMPTS[0], 0, 1.25)
    assert np.isnan(empty.table("summaries")[["low", "high"]].to_numpy(dtype=float)).all()
    empty.add_image(job, PROMPTS[0], 1, 1.25)
    intervals = empty.table("summaries")[["low", "value", "high"]].to_numpy()
    assert (np.diff(intervals) > 0).all()


def test_the_bootstrap_interval_is_that_of_the_closed_form():
    values = np.random.default_rng(0).normal(2.0, 1.0, 400).tolist()
    value, low, high = bootstrap_mean(values, samples=4000, seed=0)
    half = 1.96 * float(np.std(values)) / 20
    assert value == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx((value - half, value + half), abs=0.1 * half)


@pytest.mark.parametrize(
    ("directions", "structures", "expected"),
    [
        ({1.0: 0.5, 2.0: 0.9, 3.0: 1.0}, {1.0: 0.9, 2.0: 0.8, 3.0: 0.7}, 2.0),
        ({1.0: 0.95, 2.0: 0.9, 3.0: 1.0}, {1.0: 0.9, 2.0: 0.8, 3.0: 0.7}, 1.0),
        ({1.0: 0.5, 2.0: 0.8, 3.0: 1.0}, {1.0: 0.9, 2.0: 0.8, 3.0: 0.29}, 2.0),
        ({1.0: 0.5, 2.0: 0.8}, {1.0: 0.2, 2.0: 0.1}, None),
        ({1.0: -0.1, 2.0: -0.2}, {1.0: 0.9, 2.0: 0.9}, None),
        ({0.0: 1.0, 1.0: 0.5}, {0.0: 1.0, 1.0: 0.9}, 1.0),
        ({}, {}, None),
    ],
    ids=["smallest that is enough", "weakest is enough", "layout lost at the top", "layout always lost", "wrong way", "never 0", "none"],
)
def test_the_recommended_strength_is_the_smallest_that_brings_most_of_the_style(
    directions: dict[float, float], structures: dict[float, float], expected: float | None
):
    assert recommend_strength(directions, structures, least_progress=0.9, structure_floor=0.3) == expected


@pytest.mark.parametrize(("floor", "least", "expected"), [(0.3, 0.4, 2.5), (0.6, 0.4, 1.25), (0.3, 0.2, 1.25), (0.99, 0.2, None)])
def test_the_report_recommends_by_the_run_s_own_rule(staged: Staged, floor: float, least: float, expected: float | None):
    evaluate = staged.run.evaluate.model_copy(update={"structure_floor": floor, "least_progress": least})
    staged.run = staged.run.model_copy(update={"evaluate": evaluate})
    summary = staged.build()
    assert summary.recommended_strengths == {"dog": expected, "cat": expected}
    pairs = pd.read_parquet(summary.table_urls["pairs"]).set_index("row")
    assert pairs["recommended_strength"].dropna().to_dict() == ({1: expected, 2: expected} if expected else {})
    page = Path(summary.report_url).parent.joinpath("pairs", "dog.html").read_text()
    assert ('<td class="chosen' in page) == (expected is not None)


def test_pairs_hold_verdict_reasons_and_how_sure_the_strength_is(built: ReportSummary):
    pairs = pd.read_parquet(built.table_urls["pairs"]).set_index("row")
    assert built.verdicts == {"dog": "accept", "cat": "accept"}
    assert pairs["verdict"].dropna().to_dict() == {1: "accept", 2: "accept"}
    assert "the style arrives" in pairs["verdict_reasons"][1][0]
    sure = ["recommended_strength", "recommended_strength_share", "recommended_strength_low", "recommended_strength_high"]
    assert pairs.loc[1, sure].tolist() == [2.5, 1.0, 2.5, 2.5]
    assert pairs["recommended_weight"].dropna().empty


def test_prompts_that_are_cut_are_flagged_in_the_tables(empty: Staged):
    job = empty.add_job(1, "dog")
    empty.settle(job)
    empty.add_image(job, PROMPTS[0], 0, 1.25)
    empty.add_image(job, PROMPTS[1], 0, 1.25, is_cut=True)
    assert empty.table("images").set_index("prompt")["is_cut"].to_dict() == {PROMPTS[0]: False, PROMPTS[1]: True}
    assert empty.table("pairs")["cut_prompts"][0].tolist() == [PROMPTS[1]]


def test_pictures_of_a_plain_lora_have_a_weight_and_no_strength(empty: Staged):
    job = empty.add_job(1, "dog", prompts=PROMPTS[:1])
    empty.settle(job)
    empty.add_images(job)
    for seed in SEEDS:
        empty.add_image(job, PROMPTS[0], seed, 0.0, lora_weight=0.8)
    images = empty.table("images")
    plain = images.dropna(subset=["lora_weight"])
    assert plain["lora_weight"].tolist() == [0.8] * len(SEEDS)
    assert plain["strength"].dropna().empty
    assert sorted(images["strength"].dropna().unique()) == list(STRENGTHS)
    summaries = empty.table("summaries").query("metric == 'direction' and prompt == ''")
    assert summaries["lora_weight"].dropna().tolist() == [0.8]
    pairs = empty.table("pairs")
    assert pairs["recommended_weight"].tolist() == [0.8]
    assert pairs["recommended_strength"].tolist() == [2.5]


# What became of a pair


def test_counts_and_failures_stand_in_the_summary(built: ReportSummary):
    summary = built
    assert summary.counts == {"done": 2, "failed": 2, "invalid": 1}
    assert [outcome.row for outcome in summary.failed] == [3, 4, 5]
    assert (summary.trained, summary.images_drawn) == (2, 24)


def test_a_planned_pair_without_outcome_is_pending(empty: Staged):
    empty.add_job(6, "fly")
    assert empty.table("pairs")["status"].tolist() == ["pending"]
    assert empty.build().counts == {"pending": 1}


@pytest.mark.parametrize("name", ["shard-0000-00", "shard-9999-zz"])
def test_of_two_tries_at_a_pair_the_later_one_counts_and_what_both_did_is_summed(empty: Staged, name: str):
    job = empty.add_job(1, "dog")
    earlier = empty.settle(job, "failed", images_drawn=7)
    empty.add_image(job, PROMPTS[0], 0, 1.25)
    nothing = {"status": "reused", "trained": False, "images_drawn": 5, "train_seconds": 1.0}
    later = earlier.model_copy(update=nothing | {"started_at": STARTED + timedelta(hours=1)})
    empty.write_shard(name, [later], empty.references)
    summary = empty.build()
    assert (summary.counts, summary.trained, summary.images_drawn) == ({"done": 1}, 1, 12)
    assert len(pd.read_parquet(summary.table_urls["images"])) == 1
    (pair,) = pd.read_parquet(summary.table_urls["pairs"]).to_dict("records")
    assert (pair["attempts"], pair["trained"], pair["train_seconds"]) == (2, True, 61.0)
    assert list(pd.read_parquet(summary.table_urls["attempts"]).status) == ["failed", "reused"]


def test_a_try_that_was_killed_is_listed_without_an_end_and_what_it_made_is_counted(empty: Staged):
    job = empty.add_job(1, "dog")
    record = empty.add_adapter(job)
    empty.store.drop_marker("adapter", job.fingerprint)
    empty.store.mark_done("adapter", job.fingerprint, record.model_copy(update={"made_for": f"{RUN_ID}/dog"}))
    killed = empty.settle(job, "pending", trained=False, images_drawn=0, train_seconds=0.0)
    later = killed.model_copy(
        update={"status": "reused", "started_at": STARTED + timedelta(hours=1), "ended_at": STARTED + timedelta(hours=2)}
    )
    empty.write_shard("shard-0000-bb", [later], [])
    summary = empty.build()
    assert (summary.counts, summary.trained) == ({"done": 1}, 1)
    attempts = pd.read_parquet(summary.table_urls["attempts"])
    assert list(attempts.status) == ["pending", "reused"]
    assert list(attempts.ended_at.isna()) == [True, False]


def test_a_pair_whose_worker_was_lost_is_failed_and_keeps_its_earlier_pictures(empty: Staged):
    job = empty.add_job(6, "fly")
    empty.settle(job)
    empty.add_image(job, PROMPTS[0], 0, 1.25)
    lost = Outcome.model_validate({"pair_id": "fly", "row": 6, "status": "failed", "error_class": "WorkerError", "error_message": "died"})
    empty.store.write_part(RUN_ID, "lost.outcomes", encode_records([lost], Outcome))
    pair = empty.table("pairs").set_index("pair_id").loc["fly"]
    assert (pair["status"], pair["error_class"]) == ("failed", "WorkerError")
    assert len(empty.table("images")) == 1


def test_a_run_that_is_not_there_is_named_with_those_that_are(empty: Staged):
    empty.write()
    with pytest.raises(StoreError, match=f"no run 'other'; its runs are: {RUN_ID}"):
        rebuild_report(empty.store, "other")


def test_a_report_is_the_same_however_many_pairs_are_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stage_night(tmp_path).build()
    tonight = stage_night(tmp_path, night=1, trained_anew={"dog": -0.45, "cow": 0.2})
    folder = Path(tonight.build().report_url).parent
    at_once = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(collection, "PAIRS_AT_ONCE", 1)
    shutil.rmtree(folder)
    tonight.build()
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == at_once


def test_no_more_than_two_batches_of_pairs_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    staged = stage_night(tmp_path, pairs=[f"pair-{number}" for number in range(12)])
    staged.write()
    record = staged.store.read_run(staged.run_id, RunRecord)
    assert record is not None
    monkeypatch.setattr(collection, "PAIRS_AT_ONCE", 2)
    seen: list[ref[PairContents]] = []
    for batch in collect_run(staged.store, record).read_batches():
        seen += map(ref, batch)
        assert sum(one() is not None for one in seen) <= 4
    assert len(seen) == 12


def test_pictures_of_a_table_lie_in_row_groups_that_a_reader_can_page_through(tmp_path: Path):
    table = Table(tmp_path / "images.parquet", SCHEMAS["images"])
    table.add({"pair_id": str(number)} for number in range(250))
    table.close()
    written = parquet.ParquetFile(tmp_path / "images.parquet")
    assert [written.metadata.row_group(index).num_rows for index in range(written.num_row_groups)] == [100, 100, 50]
    assert written.read()["pair_id"].to_pylist() == [str(number) for number in range(250)]
