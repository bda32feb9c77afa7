"""Portions of a run on many machines, looked after until the store holds the end of each.

Whoever passes portions on knows that a process waits, runs or has ended, and nothing about its rows: those are read from the store. A
portion whose machine was lost is begun again with what is left of it, as long as that gets on.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol

from pairlora.config import FleetRun
from pairlora.errors import DispatchError, LostPortionError, StoreError
from pairlora.execution.portions import cut_portions, find_left, name_portion
from pairlora.execution.progress import Listener, ProgressEvent
from pairlora.execution.run_kinds import AnyPlan, Run, RunKind
from pairlora.execution.runs import fail_shard
from pairlora.records import Heartbeat, Outcome, Portion, RowShard
from pairlora.store.run_store import RunStore

log = logging.getLogger(__name__)
POLL_SECONDS = 5.0
UNANSWERED_SECONDS = 3600.0
"""A store or a dispatcher that gives no answer for so long ends the wait; the machines go on."""

Phase = Literal["waiting", "starting", "running", "ended", "cancelled"]


class Dispatcher(Protocol):
    """Passes portions on to machines. Each method raises DispatchError where it gets no answer, and may then be called again."""

    def start(self, run: FleetRun, portion: Portion) -> str:
        """Ask for a process that does a portion, and give its id; asked again for the same portion, it is the same process."""
        ...

    def look(self, ids: Sequence[str]) -> dict[str, Phase]:
        """In which phase these processes are; one that is not known any more is left out."""
        ...

    def find(self, run_id: str) -> dict[str, Portion]:
        """Portions of a run whose processes have not ended, by the id of the process."""
        ...

    def cancel(self, process: str) -> None:
        """Let a process end."""
        ...

    def declare_lost(self, process: str) -> None:
        """Note that a process has ended with its machine."""
        ...


@dataclass
class Watch:
    """A portion that is looked after. `rows` were left when it was begun; `changed_at` is when it last gave news, a monotonic time."""

    portion: Portion
    rows: int
    fruitless: int = 0
    process: str | None = None
    phase: Phase = "waiting"
    beat: Heartbeat | None = None
    changed_at: float = field(default_factory=time.monotonic)
    complained: bool = False

    @property
    def silent_seconds(self) -> float:
        """How long there was no news of it."""
        return time.monotonic() - self.changed_at

    def note(self, phase: Phase, beat: Heartbeat | None) -> None:
        """Take in what is known by now."""
        if (phase, beat) != (self.phase, self.beat):
            self.phase, self.beat, self.changed_at = phase, beat, time.monotonic()


class Fleet(Generic[Run, AnyPlan]):
    """Has the shards of a plan done on other machines."""

    def __init__(
        self,
        kind: RunKind[Run, AnyPlan],
        run: Run,
        plan: AnyPlan,
        dispatcher: Dispatcher,
        listeners: Iterable[Listener] = (),
        *,
        poll: float = POLL_SECONDS,
    ):
        self._kind = kind
        self._store = RunStore(run.output.url, timeout=run.output.timeout_seconds)
        # a folder is named as all processes find it, wherever they work
        self._run = run.model_copy(update={"output": run.output.model_copy(update={"url": self._store.url})})
        self._plan = plan
        self._dispatcher = dispatcher
        self._listeners = tuple(listeners)
        self._poll = poll
        self._watches: list[Watch] = []
        self._lost: list[Outcome] = []
        self._answered_at = time.monotonic()

    def do_portions(self) -> list[Outcome]:
        """Begin all portions and wait for their ends; gives the outcomes of rows that were given up.

        An interrupt cancels the processes; where this process is killed they go on, and the next one takes them over.
        """
        self._watches = self._take_over()
        adopted = {name for watch in self._watches for name in watch.portion.shards}
        left = [shard.name for shard in self._plan.shards if shard.name not in adopted]
        portions = cut_portions(self._plan.run_id, left, max(1, self._run.fleet.portions - len(self._watches)))
        self._watches += [self._watch(portion) for portion in portions]
        try:
            while self._watches:
                self._attempt(self._go_round)
                time.sleep(self._poll if self._watches else 0)
        except KeyboardInterrupt:
            self._attempt(self._cancel_all)
            raise
        return self._lost

    def _take_over(self) -> list[Watch]:
        """Portions that an earlier process of the run began, and that still go on."""
        planned = {shard.name for shard in self._plan.shards}
        found = self._dispatcher.find(self._plan.run_id)
        return [self._watch(portion, process) for process, portion in found.items() if planned.intersection(portion.shards)]

    def _watch(self, portion: Portion, process: str | None = None) -> Watch:
        names = set(portion.shards)
        return Watch(portion, sum(len(shard.jobs) for shard in self._plan.shards if shard.name in names), process=process)

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do a step. Where the store or the dispatcher gives no answer it is left for the next time, and no machine is thought lost."""
        try:
            step()
            self._answered_at = time.monotonic()
        except (DispatchError, StoreError) as error:
            log.warning("the fleet could not be looked after, which is tried again: %s: %s", type(error).__name__, error)
            if time.monotonic() - self._answered_at > UNANSWERED_SECONDS:
                raise
            for watch in self._watches:
                watch.changed_at = time.monotonic()

    def _go_round(self) -> None:
        for watch in self._watches:
            watch.process = watch.process or self._dispatcher.start(self._run, watch.portion)
        # processes before the store: what a process that has ended wrote is then seen
        phases = self._dispatcher.look([watch.process for watch in self._watches if watch.process])
        beats = self._store.read_heartbeats(self._plan.run_id, [watch.portion.name for watch in self._watches], Heartbeat)
        for watch in list(self._watches):
            watch.note(phases.get(watch.process or "", "running"), beats.get(watch.portion.name))
            self._judge(watch)

    def _judge(self, watch: Watch) -> None:
        if watch.beat is not None and watch.beat.closed:
            self._tell(watch, watch.rows)
            self._watches.remove(watch)
        elif watch.phase == "cancelled":
            self._let_go(watch, self._find_left(watch), "cancelled")
        elif watch.phase == "ended":
            log.warning("%s: its process ended before its work did", watch.portion.name)
            self._begin_again(watch)
        elif self._is_silent(watch):
            log.warning("%s: no sign of life for %.0f s", watch.portion.name, watch.silent_seconds)
            self._dispatcher.declare_lost(watch.process or "")
            self._begin_again(watch)
        elif watch.beat is not None:
            self._tell(watch, watch.beat.settled)
        elif watch.silent_seconds > self._run.fleet.silence_seconds and not watch.complained:
            watch.complained = True
            log.warning("%s is not begun for %.0f s: are workers of its pool running?", watch.portion.name, watch.silent_seconds)

    def _is_silent(self, watch: Watch) -> bool:
        fleet = self._run.fleet
        limits = {"running": fleet.silence_seconds, "starting": fleet.start_seconds}
        return watch.silent_seconds > limits.get(watch.phase, float("inf"))

    def _find_left(self, watch: Watch) -> Sequence[RowShard]:
        return find_left(self._kind, self._run, self._store, self._plan, watch.portion)

    def _begin_again(self, watch: Watch) -> None:
        left = self._find_left(watch)
        rows = sum(len(shard.jobs) for shard in left)
        self._tell(watch, watch.rows - rows)
        fruitless = 0 if rows < watch.rows else watch.fruitless + 1
        if fruitless > self._run.fleet.retries:
            self._let_go(watch, left, "failed")
            return
        self._watches.remove(watch)
        if left:
            portion = name_portion(self._plan.run_id, [shard.name for shard in left])
            log.warning("%s begins again as %s, %d %ss are left", watch.portion.name, portion.name, rows, self._kind.noun)
            self._watches.append(Watch(portion, rows, fruitless))

    def _let_go(self, watch: Watch, left: Sequence[RowShard], status: Literal["cancelled", "failed"]) -> None:
        """Give up what is left of a portion; the next run does it."""
        times = f"was lost {watch.fruitless + 1} times without one {self._kind.noun} of it getting done"
        why = "was cancelled" if status == "cancelled" else times
        error = LostPortionError(f"{watch.portion.name} {why}; Prefect has the log of its flow runs (tag {self._plan.run_id})")
        self._lost += [outcome.model_copy(update={"status": status}) for shard in left for outcome in fail_shard(shard, error)]
        self._watches.remove(watch)

    def _cancel_all(self) -> None:
        for watch in self._watches:
            if watch.process:
                self._dispatcher.cancel(watch.process)

    def _tell(self, watch: Watch, settled: int) -> None:
        for listener in self._listeners:
            listener(ProgressEvent("pairs", min(settled, watch.rows), watch.rows, f"{self._kind.noun}s", watch.portion.name))
