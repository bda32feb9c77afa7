"""What the work of a fleet must know of a kind of run: how its plan is read back, what is finished of it, and which machine may do it.

Everything else of portions is the same for all runs over rows of a manifest.
"""

from collections.abc import Container
from typing import Protocol, TypeVar

from pairlora.bases.loading import digest_base
from pairlora.config import FleetRun, RunConfig, TrainConfig
from pairlora.errors import ConfigError
from pairlora.execution.finished import find_finished, identify_pair, leave_out
from pairlora.execution.planning import cut_shards, pack_jobs
from pairlora.execution.runs import read_record, write_finished
from pairlora.identity import fingerprint_training
from pairlora.records import Plan, RowPlan
from pairlora.report.collection import PLAN_PART, read_jobs
from pairlora.store.keys import Kind
from pairlora.store.run_store import RunStore

SAME_MACHINES = "give all machines the same image or checkout"
AnyPlan = TypeVar("AnyPlan", bound=RowPlan)
Run = TypeVar("Run", bound=FleetRun)
SomeRun = TypeVar("SomeRun", bound=FleetRun, contravariant=True)


class RunKind(Protocol[SomeRun, AnyPlan]):
    """A kind of run whose shards may be done in portions: runs of pairs are `PAIRS`, those over catalogues `ASSETS`."""

    @property
    def noun(self) -> str:
        """What a row of its manifest is."""
        ...

    @property
    def marker(self) -> Kind:
        """The kind of the markers that its finished rows have."""
        ...

    def read_plan(self, run: SomeRun, store: RunStore, run_id: str) -> AnyPlan:
        """The whole plan as the store keeps it, in shards as this configuration cuts them. The manifest is not read again."""
        ...

    def check_machine(self, run: SomeRun, plan: AnyPlan) -> None:
        """ConfigError where a job would have another identity on this machine."""
        ...

    def identify_rows(self, run: SomeRun, plan: AnyPlan) -> dict[int, str]:
        """The key of each job's marker, by row."""
        ...

    def leave_out(self, plan: AnyPlan, rows: Container[int]) -> AnyPlan:
        """The plan without these rows, and without shards that have become empty."""
        ...

    def keep_finished(self, run: SomeRun, store: RunStore, plan: AnyPlan, part: str) -> AnyPlan:
        """Record in parts of that name what the store holds whole; gives the plan of what is left."""
        ...


class PairRuns:
    """Runs that train a pair a row."""

    noun = "pair"
    marker: Kind = "pair"

    def read_plan(self, run: RunConfig, store: RunStore, run_id: str) -> Plan:
        record = read_record(store, run_id)
        planned = store.read_part(run_id, PLAN_PART)
        jobs = read_jobs({PLAN_PART: planned} if planned else {})
        return Plan(
            run_id=run_id,
            started_at=record.started_at,
            manifest=record.manifest,
            manifest_sha256=record.manifest_sha256,
            base_digest=digest_base(run.base.name, run.base.revision, run.base.config),
            shards=cut_shards(pack_jobs(jobs, run.execution.largest_pack), run.execution.shard_packs),
        )

    def check_machine(self, run: RunConfig, plan: Plan) -> None:
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
                    f"{job.row_id} would be trained otherwise here than was planned: base '{run.base.name}' or the version of pairlora "
                    f"differs from that of the machine that planned; {SAME_MACHINES}"
                )

    def identify_rows(self, run: RunConfig, plan: Plan) -> dict[int, str]:
        return {job.row: identify_pair(job, run, plan.base_digest) for job in plan.jobs}

    def leave_out(self, plan: Plan, rows: Container[int]) -> Plan:
        return plan.model_copy(update={"shards": leave_out(plan.shards, rows)})

    def keep_finished(self, run: RunConfig, store: RunStore, plan: Plan, part: str) -> Plan:
        finished = find_finished(store, run, plan, store.list_done("adapter"))
        write_finished(store, plan.run_id, finished, part)
        return self.leave_out(plan, finished.outcomes)


PAIRS = PairRuns()
