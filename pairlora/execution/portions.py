"""A run in portions, each done by a process on a machine of its own: cut from the plan, opened from the store, closed in it.

Such a process gives the store a sign of life while it works, and the last one says that it did all it could: a machine that is lost
says nothing any more, whatever else is known of it.
"""

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from math import ceil

from pydantic import ValidationError

from pairlora.config import FleetRun
from pairlora.errors import ConfigError, StoreError
from pairlora.execution.progress import ProgressEvent
from pairlora.execution.run_kinds import SAME_MACHINES, AnyPlan, Run, RunKind
from pairlora.execution.runs import open_store
from pairlora.records import Heartbeat, Outcome, Portion, RowShard
from pairlora.store.parts import encode_records
from pairlora.store.run_store import RunStore

log = logging.getLogger(__name__)
SHARDS_PER_PORTION = 1000
"""A shard is a task run, and more of them in one flow run are too many for Prefect's server."""
BEATS_PER_SILENCE = 10
"""A machine is silent when so many signs of life are missing."""


def cut_portions(run_id: str, shards: Sequence[str], portions: int) -> list[Portion]:
    """The named shards in at most `portions` of about equal size; more where one would hold too many.

    They are dealt out in turn: neighbours in a manifest often take equally long.
    """
    count = max(min(portions, len(shards)), ceil(len(shards) / SHARDS_PER_PORTION))
    return [name_portion(run_id, shards[start::count]) for start in range(count)]


def name_portion(run_id: str, shards: Sequence[str]) -> Portion:
    """A portion with a name that none had before."""
    return Portion(run_id=run_id, name=f"portion-{uuid.uuid4().hex[:12]}", shards=tuple(shards))


def open_portion(kind: RunKind[Run, AnyPlan], run: Run, portion: Portion) -> AnyPlan:
    """What is left of a portion, by the plan that the store keeps. The manifest is not read again.

    Raises ConfigError where the plan is another one by now, or where this machine would do otherwise than was planned.
    """
    store = open_store(run)
    try:
        plan = kind.read_plan(run, store, portion.run_id)
    except ValidationError as error:
        raise ConfigError(
            f"run {portion.run_id} was planned by another version of pairlora, whose {kind.noun}s are described otherwise; {SAME_MACHINES}"
        ) from error
    if missing := set(portion.shards) - {shard.name for shard in plan.shards}:
        raise ConfigError(
            f"run {portion.run_id} was planned anew with other pictures or other packs: {min(missing)} is none of its shards; "
            "let the flow run that planned it last cut its portions"
        )
    plan = choose_shards(plan, portion)
    kind.check_machine(run, plan)
    return kind.keep_finished(run, store, plan, f"finished.{portion.name}")


def choose_shards(plan: AnyPlan, portion: Portion) -> AnyPlan:
    """The plan with the shards of a portion alone."""
    names = set(portion.shards)
    return plan.model_copy(update={"shards": tuple(shard for shard in plan.shards if shard.name in names)})


def close_portion(run: FleetRun, portion: Portion, lost: Sequence[Outcome]) -> None:
    """Record the rows of shards that were lost as a whole, which could not do so themselves, and that the portion is over."""
    store = RunStore(run.output.url, timeout=run.output.timeout_seconds)
    store.write_part(portion.run_id, f"{portion.name}.outcomes", encode_records(lost, Outcome))
    store.write_heartbeat(portion.run_id, portion.name, Heartbeat(count=0, closed=True))  # last: nothing more is to be waited for


class Pulse:
    """Gives the store a sign of life of a portion until it is left; use as a context manager, and as a listener to its progress.

    A sign that the store does not take is left out: the work goes on.
    """

    def __init__(self, run: FleetRun, portion: Portion):
        self._store = RunStore(run.output.url, timeout=run.output.timeout_seconds)
        self._portion = portion
        self._seconds = run.fleet.silence_seconds / BEATS_PER_SILENCE
        self._settled: Counter[str] = Counter()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Pulse":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """The last sign has been given when this returns, so that none follows the closing."""
        self._stopped.set()
        self._thread.join()

    def __call__(self, event: ProgressEvent) -> None:
        if event.phase == "pairs":
            self._settled[event.shard] = event.done

    def _beat(self) -> None:
        count = 0
        while True:
            count += 1
            try:
                beat = Heartbeat(count=count, settled=sum(self._settled.copy().values()))
                self._store.write_heartbeat(self._portion.run_id, self._portion.name, beat)
            except StoreError as error:
                log.warning("%s: the store takes no sign of life: %s", self._portion.name, error)
            if self._stopped.wait(self._seconds):
                return


def find_left(kind: RunKind[Run, AnyPlan], run: Run, store: RunStore, plan: AnyPlan, portion: Portion) -> Sequence[RowShard]:
    """The shards of a portion of which some row is not finished, with these rows alone; by one listing."""
    done, chosen = store.list_done(kind.marker), choose_shards(plan, portion)
    return kind.leave_out(chosen, {row for row, key in kind.identify_rows(run, chosen).items() if key in done}).shards
