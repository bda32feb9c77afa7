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

from pairlora.bases.loading import digest_base
from pairlora.config import RunConfig, TrainConfig
from pairlora.errors import ConfigError, StoreError
from pairlora.execution.finished import find_finished, identify_pair, leave_out
from pairlora.execution.planning import cut_shards, pack_jobs
from pairlora.execution.progress import ProgressEvent
from pairlora.execution.runs import open_store, read_record, write_finished
from pairlora.identity import fingerprint_training
from pairlora.records import Heartbeat, Job, Outcome, Plan, Portion, Shard
from pairlora.report.collection import PLAN_PART, read_jobs
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


def open_portion(run: RunConfig, portion: Portion) -> Plan:
    """What is left of a portion, by the plan that the store keeps. The manifest is not read again.

    Raises ConfigError where the plan is another one by now, or where this machine would train otherwise than was planned.
    """
    store = open_store(run)
    record = read_record(store, portion.run_id)
    planned = store.read_part(portion.run_id, PLAN_PART)
    jobs = read_jobs({PLAN_PART: planned} if planned else {})
    base_digest = digest_base(run.base.name, run.base.revision, run.base.config)
    plan = Plan(
        run_id=portion.run_id,
        started_at=record.started_at,
        manifest=record.manifest,
        manifest_sha256=record.manifest_sha256,
        base_digest=base_digest,
        shards=choose_shards(run, jobs, portion),
    )
    check_machine(run, plan)
    finished = find_finished(store, run, plan, store.list_done("adapter"))
    write_finished(store, portion.run_id, finished, f"finished.{portion.name}")
    return plan.model_copy(update={"shards": finished.leave_out(plan.shards)})


def choose_shards(run: RunConfig, jobs: Sequence[Job], portion: Portion) -> tuple[Shard, ...]:
    """The portion's shards among those that the run's jobs make."""
    shards = {shard.name: shard for shard in cut_shards(pack_jobs(jobs, run.execution.largest_pack), run.execution.shard_packs)}
    if missing := [name for name in portion.shards if name not in shards]:
        raise ConfigError(
            f"run {portion.run_id} was planned anew with other pictures or other packs: {missing[0]} is none of its shards; "
            "let the flow run that planned it last cut its portions"
        )
    return tuple(shards[name] for name in portion.shards)


def check_machine(run: RunConfig, plan: Plan) -> None:
    """ConfigError where a job would have another identity on this machine: its base or its pairlora is another one."""
    for job in plan.jobs:
        fingerprint = fingerprint_training(
            job.pair,
            TrainConfig.model_validate(job.train),
            content_sha256=job.content_sha256,
            style_sha256=job.style_sha256,
            base_digest=plan.base_digest,
            dtype=run.base.dtype,
        )
        if fingerprint != job.fingerprint:
            raise ConfigError(
                f"{job.pair.pair_id} would be trained otherwise here than was planned: base '{run.base.name}' or the version of pairlora "
                "differs from that of the machine that planned; give all machines the same image or checkout"
            )


def close_portion(run: RunConfig, portion: Portion, lost: Sequence[Outcome]) -> None:
    """Record the pairs of shards that were lost as a whole, which could not do so themselves, and that the portion is over."""
    store = RunStore(run.output.url, timeout=run.output.timeout_seconds)
    store.write_part(portion.run_id, f"{portion.name}.outcomes", encode_records(lost, Outcome))
    store.write_heartbeat(portion.run_id, portion.name, Heartbeat(count=0, closed=True))  # last: nothing more is to be waited for


class Pulse:
    """Gives the store a sign of life of a portion until it is left; use as a context manager, and as a listener to its progress.

    A sign that the store does not take is left out: the work goes on.
    """

    def __init__(self, run: RunConfig, portion: Portion):
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


def find_left(store: RunStore, run: RunConfig, plan: Plan, portion: Portion) -> tuple[Shard, ...]:
    """The shards of a portion of which some pair is not finished, with these pairs alone; by one listing."""
    done, names = store.list_done("pair"), set(portion.shards)
    shards = [shard for shard in plan.shards if shard.name in names]
    jobs = [job for shard in shards for job in shard.jobs]
    return leave_out(shards, {job.pair.row for job in jobs if identify_pair(job, run, plan.base_digest) in done})
