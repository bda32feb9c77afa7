"""What Prefect shows of a run: a progress artifact while it goes on; a summary, short tables and a link at its end.

It is for looking at, and a server that does not answer costs the note alone: the run goes on, and the store has it all.
Notes lie in Prefect's database, so none grows with the number of pairs or with what went wrong: half a megabyte at most.
"""

import logging
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from pairlora.config import AnyRun
from pairlora.errors import StoreError
from pairlora.execution.progress import ProgressEvent
from pairlora.report import CONTACT_SHEET, ReportSummary
from pairlora.store.run_store import RunStore

log = logging.getLogger(__name__)
SECONDS_BETWEEN_UPDATES = 5.0
LISTED_FAILURES = 50
LISTED_PAIRS = 20
LONGEST_TEXT = 400


@contextmanager
def _at_most_unseen() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectException, StoreError, OSError) as error:
        log.warning("Prefect does not show this: %s: %s", type(error).__name__, error)


class ProgressArtifact:
    """A listener that keeps a progress artifact up to date: the share of rows that are settled."""

    def __init__(self, rows: int):
        self._rows = max(1, rows)
        self._done = 0
        self._done_of: dict[str, int] = {}
        self._updated_at = time.monotonic()
        self._artifact: UUID | None = None
        with _at_most_unseen():
            artifact = create_progress_artifact(0.0, key="pairs-progress", description=f"{rows} rows of the manifest")
            self._artifact = cast(UUID, artifact)  # a coroutine only where it is called from one

    def __call__(self, event: ProgressEvent) -> None:
        if event.phase != "pairs":
            return
        self._done += event.done - self._done_of.get(event.shard, 0)
        self._done_of[event.shard] = event.done
        if time.monotonic() - self._updated_at >= SECONDS_BETWEEN_UPDATES:
            self._write(100 * self._done / self._rows)

    def finish(self) -> None:
        self._write(100.0)

    def _write(self, percent: float) -> None:
        self._updated_at = time.monotonic()
        if self._artifact is None:
            return
        with _at_most_unseen():
            update_progress_artifact(self._artifact, progress=round(min(100.0, percent), 1))


def note_report(run: AnyRun, summary: ReportSummary) -> None:
    """Leave with the flow run a summary with a contact sheet, the worst pairs, the first failures, and a link to the report."""
    with _at_most_unseen():
        create_link_artifact(summary.report_url, key="report", link_text=f"report of {summary.run_id}")
        create_markdown_artifact(describe_run(summary, read_contact_sheet(run, summary.run_id)), key="summary")
        if worst := list_worst(summary):
            create_table_artifact(worst, key="worst-pairs", description="the pairs that need a look most, worst first")
        if failures := list_failures(summary):
            create_table_artifact(failures, key="failures", description=f"{len(summary.failed)} pairs failed; the first ones")


def read_contact_sheet(run: AnyRun, run_id: str) -> bytes | None:
    """The picture of the worst pairs beside the report."""
    return RunStore(run.output.url, timeout=run.output.timeout_seconds).read_report_file(run_id, CONTACT_SHEET)


def describe_run(summary: ReportSummary, sheet: bytes | None) -> str:
    """The run in Markdown: what it came to, what became worse, and a picture of the worst pairs."""
    verdicts = Counter(summary.verdicts.values())
    counts = [f"**{verdicts[name]}** to {name}" for name in ("accept", "review", "reject")]
    counts += [f"**{number}** {name}" for name, number in summary.counts.items()]
    lines = [f"# {summary.run_id}", " · ".join(counts), f"{summary.trained} adapters trained, {summary.images_drawn} images drawn"]
    if summary.became_worse:
        named = ", ".join(f"`{pair_id}`" for pair_id in summary.became_worse[:LISTED_PAIRS])
        lines.append(f"**{len(summary.became_worse)} worse than last time**, the largest loss first: {named}")
    lines.append(f"Report: `{summary.report_url}`")
    if sheet and summary.worst:
        picture = f"![the pairs that need a look most]({'data:image/png;base64,' + b64encode(sheet).decode()})"
        lines += ["The pairs that need a look most: content, style, a prompt unstyled and in the style", picture]
    return "\n\n".join(lines)


def list_worst(summary: ReportSummary) -> list[dict[str, Any]]:
    """One row a pair, the worst first."""
    return [
        one.model_dump(exclude={"reasons", "direction", "structure"})
        | {name: None if (value := getattr(one, name)) is None else round(value, 3) for name in ("direction", "structure")}
        | {"reasons": cut_text("; ".join(one.reasons))}
        for one in summary.worst
    ]


def list_failures(summary: ReportSummary) -> list[dict[str, Any]]:
    """One row a pair that failed."""
    return [
        {"pair_id": outcome.pair_id, "row": outcome.row, "error": outcome.error_class, "message": cut_text(outcome.error_message)}
        for outcome in summary.failed[:LISTED_FAILURES]
    ]


def cut_text(text: str) -> str:
    """At most `LONGEST_TEXT` characters, so that no artifact grows with what went wrong."""
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
