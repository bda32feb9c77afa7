"""Since last time: a pair that became worse on purpose is named first, beside its earlier picture, and what is as before is not."""

from datetime import timedelta
from pathlib import Path

import pytest
from staged_run import STARTED, Staged, stage_night

from pairlora.records import RunRecord
from pairlora.report.collection import collect_run
from pairlora.report.comparison import Comparer, Comparison, find_previous
from pairlora.report.verdicts import find_out


def compare(staged: Staged) -> Comparison | None:
    staged.write()
    record = read_record(staged)
    contents = collect_run(staged.store, record)
    comparer = Comparer(staged.store, contents, staged.run.evaluate)
    for pair in contents.read_pairs():
        comparer.add([pair], [find_out(pair, staged.run.evaluate)])
    return comparer.finish()


def read_record(staged: Staged) -> RunRecord:
    record = staged.store.read_run(staged.run_id, RunRecord)
    assert record is not None
    return record


def test_the_first_run_has_nothing_to_compare_with(tmp_path: Path):
    staged = stage_night(tmp_path)
    assert compare(staged) is None
    assert 'id="changes"' not in staged.page()


def test_a_night_that_reused_everything_changed_nothing(tmp_path: Path):
    stage_night(tmp_path).build()
    comparison = compare(stage_night(tmp_path, night=1))
    assert comparison is not None
    assert (comparison.changes, comparison.unchanged) == ((), 3)


def test_the_pair_that_was_made_worse_is_named_first(tmp_path: Path):
    stage_night(tmp_path).build()
    worse = stage_night(tmp_path, night=1, trained_anew={"cow": 0.2, "dog": -0.45, "cat": -0.1})
    comparison = compare(worse)
    assert comparison is not None
    assert [(change.pair_id, change.kind) for change in comparison.changes] == [("dog", "worse"), ("cat", "worse"), ("cow", "better")]
    dog = comparison.changes[0]
    assert dog.then == "accept"
    assert dog.now != "accept"
    assert next(one.value for one in dog.differences if one.metric == "direction") == pytest.approx(-0.45)
    assert dog.pictures is not None
    before, after = (image.record for image in dog.pictures)
    assert (before.prompt, before.seed) == (after.prompt, after.seed)
    assert before.image_id != after.image_id
    page = worse.page()
    assert page.index("pairs/dog.html") < page.index("pairs/cat.html") < page.index("pairs/cow.html")
    assert "2 worse, 1 better, 0 changed both ways, 0 as before" in page


def test_a_pair_trained_anew_to_the_same_end_is_as_before(tmp_path: Path):
    stage_night(tmp_path).build()
    comparison = compare(stage_night(tmp_path, night=1, trained_anew={"dog": 0.001}))
    assert comparison is not None
    assert (comparison.changes, comparison.unchanged) == ((), 3)


def test_a_pair_that_fails_now_is_worse_and_others_are_new_or_gone(tmp_path: Path):
    stage_night(tmp_path, pairs=("dog", "cat")).build()
    tonight = stage_night(tmp_path, night=1, pairs=("dog",))
    tonight.settle(tonight.add_job(2, "owl"))
    tonight.outcomes[0] = tonight.outcomes[0].model_copy(update={"status": "failed"})
    comparison = compare(tonight)
    assert comparison is not None
    assert [(change.pair_id, change.kind) for change in comparison.changes] == [("dog", "worse")]
    assert (comparison.added, comparison.gone) == (("owl",), ("cat",))


def test_the_previous_run_is_the_newest_finished_one_of_the_manifest(tmp_path: Path):
    nights = [stage_night(tmp_path, night=night, pairs=()) for night in range(5)]
    for night in nights:
        night.write()
    tonight = read_record(nights[4])
    other = read_record(nights[2]).model_copy(update={"manifest": str(tmp_path / "other.csv")})
    nights[2].store.write_run(nights[2].run_id, other)
    nights[3].store.write_run(nights[3].run_id, read_record(nights[3]).model_copy(update={"finished_at": None}))
    found = find_previous(nights[4].store, tonight)
    assert found is not None
    assert found.run_id == nights[1].run_id
    moved = tonight.model_copy(update={"manifest": "s3://studio/moved/other.csv"})
    by_name = find_previous(nights[4].store, moved)
    assert by_name is not None
    assert by_name.run_id == nights[2].run_id
    assert find_previous(nights[4].store, tonight.model_copy(update={"started_at": STARTED - timedelta(days=1)})) is None
