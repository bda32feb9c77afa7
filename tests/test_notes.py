"""What Prefect is told of a run stays small however many pairs there are and whatever went wrong, and names the worst first."""

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image
from staged_run import Staged, stage_run

from pairlora.records import Outcome
from pairlora.report import ReportSummary
from tasks.notes import describe_run, list_failures, list_worst, read_contact_sheet

MOST_BYTES = 500_000


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """Sixteen pairs of noise, the heaviest pictures there are; the last ones leak."""
    run = Staged(tmp_path_factory.mktemp("many"))
    for row in range(1, 17):
        job = run.add_job(row, f"pair-with-a-long-name-{'x' * 60}-{row:02d}", prompts=("a fox",))
        run.shifts[job.pair.pair_id] = -0.04 * max(0, row - 12)
        run.settle(job)
        run.add_images(job)
    return run


@pytest.fixture(scope="module")
def summary(staged: Staged) -> ReportSummary:
    return staged.build()


def test_no_note_of_many_pairs_exceeds_half_a_megabyte(staged: Staged, summary: ReportSummary):
    text = "\U0001f98a" * 50_000
    failure = {"pair_id": "x" * 200, "row": 1, "status": "failed", "error_class": "StoreError", "error_message": text}
    loud = summary.model_copy(
        update={
            "failed": (Outcome.model_validate(failure),) * 500,
            "became_worse": tuple(one.pair_id for one in summary.worst) * 50,
            "worst": tuple(one.model_copy(update={"reasons": (text, text)}) for one in summary.worst),
        }
    )
    notes = (describe_run(loud, read_contact_sheet(staged.run, staged.run_id)), list_worst(loud), list_failures(loud))
    assert all(1000 < len(json.dumps(note)) < MOST_BYTES for note in notes)


def test_the_summary_shows_a_contact_sheet_of_the_worst(staged: Staged, summary: ReportSummary):
    found = re.search(r"!\[[^]]*\]\(data:image/png;base64,([^)]+)\)", describe_run(summary, read_contact_sheet(staged.run, staged.run_id)))
    assert found is not None
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as sheet:
        assert sheet.width > sheet.height > 300
        assert len(sheet.convert("L").getcolors() or []) > 50


def test_the_worst_pairs_are_the_rejected_ones_with_least_style_and_say_why(summary: ReportSummary):
    worst = list_worst(summary)
    assert len(worst) == 10
    grades = [["reject", "review", "accept"].index(one["verdict"]) for one in worst]
    assert grades == sorted(grades)
    same = [one["direction"] for one in worst if one["verdict"] == worst[0]["verdict"]]
    assert same == sorted(same)
    assert worst[0]["pair_id"].endswith("-16")
    assert all(one["reasons"] for one in worst)


def test_pairs_that_became_worse_are_named_and_a_run_without_pairs_is_told_too(tmp_path: Path, summary: ReportSummary):
    told = describe_run(summary.model_copy(update={"became_worse": ("dog", "cat")}), None)
    assert "**2 worse than last time**, the largest loss first: `dog`, `cat`" in told
    empty = Staged(tmp_path)
    nothing = empty.build()
    assert "data:image" not in describe_run(nothing, read_contact_sheet(empty.run, empty.run_id))
    assert (list_worst(nothing), list_failures(nothing)) == ([], [])


def test_failures_are_told_with_class_and_message(tmp_path: Path):
    failures = list_failures(stage_run(tmp_path).build())
    assert [(one["pair_id"], one["error"]) for one in failures] == [
        ("cow", "DivergedError"),
        ("dog", "ManifestError"),
        ("owl", "MissingPictureError"),
    ]
