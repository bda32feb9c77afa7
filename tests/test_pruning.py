"""Pruning: what no kept run needs goes, and nothing else; not what is young, not what an unfinished run needs, never a review."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from staged_run import Staged, stage_night

from pairlora.errors import ConfigError, StoreError
from pairlora.records import Review, RunRecord
from pairlora.store.keys import Kind
from pairlora.store.pruning import UPLOADS, carry_out, parse_age, plan_pruning
from pairlora.store.run_store import RunStore
from pairlora.store.uploads import list_uploads

KINDS: tuple[Kind, ...] = ("adapter", "image", "baseline", "score")
MONTH = timedelta(days=30)
LATER = datetime.now(UTC) + timedelta(days=60)
"""When all that the tests write has become old."""


def stage(store: RunStore, folder: Path, night: int, *pairs: str, ended: datetime | None) -> Staged:
    """A night in the store under test, with a report, that ended then; null for one that did not."""
    (folder / str(night)).mkdir()
    run = stage_night(folder / str(night), night, pairs=())
    run.store = store
    for row, pair_id in enumerate(pairs, 1):
        job = run.add_job(row, pair_id, prompts=[f"a prompt of {pair_id}", "a prompt of all"])
        run.settle(job)
        run.add_adapter(job)
        run.add_images(job)
    run.write()
    record = store.read_run(run.run_id, RunRecord)
    assert record is not None
    store.write_run(run.run_id, record.model_copy(update={"finished_at": ended}))
    store.write_report_file(run.run_id, "index.html", b"<html>")
    return run


def list_markers(store: RunStore) -> dict[str, set[str]]:
    return {kind: store.list_done(kind) for kind in KINDS}


def list_keys(store: RunStore) -> set[str]:
    return {
        key for folder in ("runs", "done", "adapters", "images", "baselines", "bases", "reviews") for key in store._objects.keys(folder)
    }


@pytest.fixture
def nights(store, tmp_path):
    """Two old nights, of which the second is younger than a month when pruning looks."""
    old = stage(store, tmp_path, 0, "fox", "owl", ended=LATER - timedelta(days=45))
    new = stage(store, tmp_path, 1, "owl", "cow", ended=LATER - timedelta(days=5))
    return old, new


def test_what_only_an_old_run_names_goes_and_a_kept_run_has_all_it_had(store, nights):
    old, new = nights
    carry_out(store, plan_pruning(store, MONTH, LATER))
    assert store.list_runs() == [new.run_id]
    assert not [key for key in list_keys(store) if old.run_id in key]
    assert store.list_done("adapter") == {job.fingerprint for job in new.jobs}
    assert store.list_done("image") | store.list_done("baseline") == {one.image_id for one in new.references}
    assert store.list_done("score") == {one.score_id for one in new.references}
    summary = new.build()
    assert summary.counts == {"done": 2}
    assert len(store._objects.keys("adapters")) == 2 * len(new.jobs)
    assert len(store._objects.keys("bases")) == 1


def test_a_dry_run_removes_nothing_and_says_what_the_real_one_frees(store, nights):
    before = list_keys(store)
    pruning = plan_pruning(store, MONTH, LATER)
    assert list_keys(store) == before
    carry_out(store, pruning)
    gone = before - list_keys(store)
    assert gone == {key for stage in pruning.stages for key in stage}
    assert {folder: count for folder, (count, _) in pruning.sum_up().items()} == {
        folder: sum(key.startswith(f"{folder}/") for key in gone) for folder in {key.partition("/")[0] for key in gone}
    }
    again = plan_pruning(store, MONTH, LATER)
    assert (again.runs, again.stages) == ((), ())


def test_what_changed_within_a_day_stays_whatever_it_is(store, nights):
    before = list_keys(store)
    carry_out(store, plan_pruning(store, timedelta(days=1), datetime.now(UTC) + timedelta(hours=23)))
    assert list_keys(store) == before


def test_an_unfinished_run_keeps_what_it_has_made_and_not_yet_named(store, tmp_path):
    old = stage(store, tmp_path, 0, "fox", ended=LATER - timedelta(days=45))
    broken = stage(store, tmp_path, 1, "fox", "cow", ended=None)
    broken.write_shard("shard-0000-aa", [], [])  # killed before it could say what it made
    before = list_markers(store)
    store.put_checkpoint(broken.jobs[0].fingerprint, b"state")
    store.put_checkpoint("f" * 64, b"state of a training that nobody wants")
    carry_out(store, plan_pruning(store, MONTH, LATER))
    assert store.list_runs() == [broken.run_id]
    assert list_markers(store) == before
    assert {key.split("/")[1] for key in store._objects.keys("checkpoints")} == {broken.jobs[0].fingerprint}
    assert not [key for key in list_keys(store) if old.run_id in key]


def test_reviews_stay(store, nights):
    old, _ = nights
    facts = {"run_id": old.run_id, "pair_id": "fox", "fingerprint": old.jobs[0].fingerprint, "verdict": "accept", "reviewer": "anna"}
    store.add_review(old.jobs[0].fingerprint, "20260101-a", Review.model_validate({**facts, "reviewed_at": LATER}))
    carry_out(store, plan_pruning(store, MONTH, LATER))
    assert len(store.read_reviews([old.jobs[0].fingerprint], Review)) == 1


def test_a_run_that_begins_meanwhile_ends_the_pruning(store, nights):
    pruning = plan_pruning(store, MONTH, LATER)
    before = list_keys(store)
    store.write_part("20260303T030405Z-abcdef", "plan", b"")
    with pytest.raises(StoreError, match="a run began"):
        carry_out(store, pruning)
    assert before <= list_keys(store)


@pytest.mark.parametrize("text", ["", "30", "30 days", "-1d", "12h", "0w"])
def test_an_age_is_a_number_with_a_unit_and_no_less_than_a_day(text):
    with pytest.raises(ConfigError, match="30d"):
        parse_age(text)


def test_ages_are_hours_days_and_weeks():
    assert [parse_age(text) for text in ("36h", "30d", "8w")] == [timedelta(hours=36), MONTH, timedelta(weeks=8)]


def test_what_was_made_over_a_catalogue_and_the_adapters_that_it_may_use_stay(store, nights, tmp_path):
    store.write_part("catalogue-20260101T030405Z-abcdef", "plan", b"")
    adapters = store.list_done("adapter")
    carry_out(store, plan_pruning(store, MONTH, LATER))
    assert store.list_done("adapter") == adapters
    assert "catalogue-20260101T030405Z-abcdef" in store.list_run_folders()


@pytest.mark.s3
def test_uploads_that_never_ended_go_where_they_are_old_and_the_stores_own(s3_url):
    store, nobodys = RunStore(s3_url), RunStore(f"{s3_url}-of-others")
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    call = store._objects._call_s3  # pyright: ignore
    for folder in (prefix, f"{prefix}-of-others"):
        begun = call("create_multipart_upload", Bucket=bucket, Key=f"{folder}/adapters/big.safetensors")
        named = {name: begun[name] for name in ("Bucket", "Key", "UploadId")}
        call("upload_part", **named, PartNumber=1, Body=b"x" * 1000)
    assert plan_pruning(store, MONTH, datetime.now(UTC)).uploads == ()
    pruning = plan_pruning(store, MONTH, LATER)
    assert pruning.sum_up() == {UPLOADS: (1, 1000)}
    assert len(store.list_uploads()) == 1
    carry_out(store, pruning)
    assert store.list_uploads() == []
    assert len(nobodys.list_uploads()) == 1
    carry_out(store, pruning)  # somebody else's pruning was quicker


def test_uploads_are_found_on_every_page_of_the_listing_and_on_a_server_that_repeats_its_first_one():
    begun = [{"Key": f"x/{number}.png", "UploadId": str(number), "Initiated": LATER} for number in range(5)]

    def answer(operation: str, *, heeds_markers: bool = True, **asked):
        """S3 as its documentation has it, with two uploads a page and no parts."""
        if operation == "list_parts":
            return {"Parts": []}
        after = [one for one in begun if (one["Key"], one["UploadId"]) > (asked.get("KeyMarker", ""), asked.get("UploadIdMarker", ""))]
        page = (after if heeds_markers else begun)[:2]
        markers = {"NextKeyMarker": page[-1]["Key"], "NextUploadIdMarker": page[-1]["UploadId"]}
        return {"Uploads": page, "IsTruncated": len(after) > 2 or not heeds_markers, **markers}

    assert [one.upload_id for one in list_uploads(answer, "bucket", "x/")] == ["0", "1", "2", "3", "4"]
    assert [one.upload_id for one in list_uploads(partial(answer, heeds_markers=False), "bucket", "x/")] == ["0", "1"]
