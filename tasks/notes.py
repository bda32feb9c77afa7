"""What Prefect shows of a run: a progress artifact while it goes on, a short table of failures and a link at its end.

It is for looking at, and a server that does not answer costs the note alone: the run goes on, and the store has it all.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_link_artifact, create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.exceptions import PrefectException

from pairlora.execution.progress import ProgressEvent
from pairlora.report import ReportSummary

log = logging.getLogger(__name__)
SECONDS_BETWEEN_UPDATES = 5.0
LISTED_FAILURES = 50


@contextmanager
def _at_most_unseen() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectException, OSError) as error:
        log.warning("Prefect does not show this: %s: %s", type(error).__name__, error)


class ProgressArtifact:
    """A listener that keeps a progress artifact up to date: the share of pairs that are settled."""

    def __init__(self, pairs: int):
        self._pairs = max(1, pairs)
        self._done = 0
        self._done_of: dict[str, int] = {}
        self._updated_at = time.monotonic()
        self._artifact: UUID | None = None
        with _at_most_unseen():
            artifact = create_progress_artifact(0.0, key="pairs-progress", description=f"{pairs} pairs")
            self._artifact = cast(UUID, artifact)  # a coroutine only where it is called from one

    def __call__(self, event: ProgressEvent) -> None:
        if event.phase != "pairs":
            return
        self._done += event.done - self._done_of.get(event.shard, 0)
        self._done_of[event.shard] = event.done
        if time.monotonic() - self._updated_at >= SECONDS_BETWEEN_UPDATES:
            self._write(100 * self._done / self._pairs)

    def finish(self) -> None:
        self._write(100.0)

    def _write(self, percent: float) -> None:
        self._updated_at = time.monotonic()
        if self._artifact is None:
            return
        with _at_most_unseen():
            update_progress_artifact(self._artifact, progress=round(min(100.0, percent), 1))


def note_report(summary: ReportSummary) -> None:
    """Leave a link to the report and the first failures with the flow run."""
    with _at_most_unseen():
        create_link_artifact(summary.report_url, key="report", link_text=f"report of {summary.run_id}")
        if summary.failed:
            failures = [outcome.model_dump(include={"pair_id", "row", "error_class", "error_message"}) for outcome in summary.failed]
            create_table_artifact(failures[:LISTED_FAILURES], key="failures", description=f"{len(failures)} pairs failed")
