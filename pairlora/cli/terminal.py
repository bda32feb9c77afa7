"""Progress at a terminal as bars, one a shard; in a log file as a line every few seconds."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from pairlora.execution.progress import Listener, ProgressEvent
from pairlora.records import RowPlan

SECONDS_BETWEEN_LINES = 15.0
log = logging.getLogger(__name__)


@contextmanager
def show_progress(plan: RowPlan) -> Iterator[Listener]:
    """A listener that draws bars on a terminal, else logs lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield LogLines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]} {task.fields[facts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield Bars(bars, {shard.name: len(shard.jobs) for shard in plan.shards})


class Bars:
    """One bar a shard or portion, from its first event on; it shows the phase that it is in."""

    def __init__(self, bars: Progress, rows: dict[str, int]):
        self._bars = bars
        self._rows = rows
        self._shown: dict[str, TaskID] = {}

    def __call__(self, event: ProgressEvent) -> None:
        if event.shard not in self._shown:
            self._shown[event.shard] = self._bars.add_task(event.shard, total=event.total, unit="", facts="")
        rows = f" ({self._rows[event.shard]} rows)" if event.shard in self._rows else ""
        description = f"{event.shard}{rows} {event.phase}"
        self._bars.update(
            self._shown[event.shard],
            description=description,
            completed=event.done,
            total=event.total,
            unit=event.unit,
            facts=describe_facts(event),
        )


class LogLines:
    """A log line for the first and last event of a phase and one every few seconds between."""

    def __init__(self) -> None:
        self._logged_at: dict[str, float] = {}

    def __call__(self, event: ProgressEvent) -> None:
        key, now = f"{event.shard} {event.phase}", time.monotonic()
        if event.done < event.total and now - self._logged_at.get(key, 0.0) < SECONDS_BETWEEN_LINES:
            return
        self._logged_at[key] = now
        log.info("%s %s %d/%d %s %s", event.shard, event.phase, event.done, event.total, event.unit, describe_facts(event))


def describe_facts(event: ProgressEvent) -> str:
    """The facts of an event in a few words: losses, images per second."""
    return " ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in event.facts.items())
