"""The life of a run in the store: opened with its plan, closed with its report. Flows and the command line share it."""

import importlib.metadata
import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime

from pairlora.bases.licences import check_licence
from pairlora.bases.loading import CREDITS, digest_base
from pairlora.config import AnyRun, RunConfig
from pairlora.errors import ConfigError, StoreError, TooManyFailuresError
from pairlora.execution.finished import Finished, find_finished
from pairlora.execution.planning import plan_run
from pairlora.records import ImageReference, Outcome, Plan, PlannedJob, RowPlan, RowShard, RunRecord
from pairlora.report import ReportSummary, build_report
from pairlora.store.keys import CATALOGUE
from pairlora.store.parts import encode_records
from pairlora.store.run_store import RunStore

VERSIONED = ("pairlora", "torch", "diffusers", "transformers", "peft", "prefect", "pillow")


def open_store(run: AnyRun) -> RunStore:
    """The run's store, probed. Workers are processes, so memory:// is refused."""
    store = RunStore(run.output.url, timeout=run.output.timeout_seconds)
    if store.is_memory:
        raise ConfigError("output.url = 'memory://' is not shared with worker processes; use a folder or a bucket")
    store.probe(single_writer=run.output.single_writer)
    return store


def open_run(run: RunConfig) -> Plan:
    """Plan a run and record it; gives the shards of what is left to do.

    Raises ManifestError, StoreError, ConfigError or LicenceError before anything is done.
    """
    check_licence(run.base)
    store = open_store(run)
    plan = plan_run(run, store, digest_base(run.base.name, run.base.revision, run.base.config), remember=True)
    return write_plan(store, run, plan, record_run(run, plan))


def write_plan(store: RunStore, run: RunConfig, plan: Plan, record: RunRecord) -> Plan:
    """Keep what a run is to do, for its report and for whoever goes on with it; gives the plan of what is left to do."""
    planned = [PlannedJob(pair_id=job.pair.pair_id, fingerprint=job.fingerprint, job=job.model_dump_json()) for job in plan.jobs]
    store.write_part(plan.run_id, "plan", encode_records(planned, PlannedJob))
    store.write_part(plan.run_id, "unplanned.outcomes", encode_records(plan.unplanned, Outcome))
    store.write_part(plan.run_id, "lost.outcomes", encode_records([], Outcome))  # those of an earlier attempt are tried again
    adapters = store.list_done("adapter")
    store.drop_done_checkpoints(adapters)
    finished = find_finished(store, run, plan, adapters)
    write_finished(store, plan.run_id, finished)
    earlier = store.read_run(plan.run_id, RunRecord)
    store.write_run(plan.run_id, record.model_copy(update={"started_at": earlier.started_at}) if earlier else record)
    return plan.model_copy(update={"shards": finished.leave_out(plan.shards)})


def write_finished(store: RunStore, run_id: str, finished: Finished, name: str = "finished") -> None:
    """Record what the store held at the beginning; pairs that an earlier attempt of the run finished keep what is known of that."""
    references = [reference for shown in finished.references.values() for reference in shown]
    store.write_part(run_id, f"{name}.images", encode_records(references, ImageReference))
    store.write_part(run_id, f"{name}.outcomes", encode_records(list(finished.outcomes.values()), Outcome))


def close_run(run: RunConfig, plan: Plan, lost: list[Outcome]) -> ReportSummary:
    """Record the pairs of lost shards, which could not do so themselves, build the report, and mark the run as finished."""
    return finish_run(run, plan, lost, build_report)


def finish_run(run: AnyRun, plan: RowPlan, lost: list[Outcome], build: Callable[..., ReportSummary]) -> ReportSummary:
    """The end of a run over rows of any kind, whose report `build` makes of the store, its record and the base's credits."""
    store = RunStore(run.output.url, timeout=run.output.timeout_seconds)
    store.write_part(plan.run_id, "lost.outcomes", encode_records(lost, Outcome))
    record = store.read_run(plan.run_id, RunRecord) or record_run(run, plan)
    finished = record.model_copy(update={"finished_at": datetime.now(UTC)})
    summary = build(store, finished, credits=CREDITS.get(run.base.name, ()))
    store.write_run(plan.run_id, finished)  # last: without its report a run is not finished, and the next one goes on with it
    return summary


def rebuild_report(store: RunStore, run_id: str | None = None) -> ReportSummary:
    """Build the report of a run, the newest where none is named, from what the store holds, with the credits that its base asks for."""
    record = read_record(store, run_id)
    return build_report(store, record, credits=CREDITS.get(record.config["base"]["name"], ()))


def read_record(store: RunStore, run_id: str | None = None) -> RunRecord:
    """The record of a run, the newest where none is named. ConfigError where there is none at all, StoreError where not that one."""
    if run_id and run_id.startswith(CATALOGUE):
        raise ConfigError(f"{run_id} is a run over a catalogue, which trains nothing; name a run of pairs")
    runs = [run_id] if run_id else store.list_runs()
    if not runs:
        raise ConfigError(f"{store.url} holds no run; `pairlora run` makes one")
    record = store.read_run(runs[-1], RunRecord)
    if record is None:
        raise StoreError(f"{store.url} has no run {run_id!r}; its runs are: {', '.join(store.list_runs()) or 'none'}")
    return record


def record_run(run: AnyRun, plan: RowPlan) -> RunRecord:
    """`run.json` of an unfinished run."""
    return RunRecord(
        run_id=plan.run_id,
        manifest=plan.manifest,
        manifest_sha256=plan.manifest_sha256,
        config=json.loads(run.model_dump_json()),
        versions=list_versions(),
        started_at=plan.started_at,
    )


def list_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results; absent ones are left out."""
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def fail_shard(shard: RowShard, error: BaseException) -> list[Outcome]:
    """One failed outcome a row of a shard that was lost as a whole."""
    return [
        Outcome(
            pair_id=job.row_id,
            row=job.row,
            status="failed",
            fingerprint=job.fingerprint,
            error_class=type(error).__name__,
            error_message=str(error),
        )
        for job in shard.jobs
    ]


def check_failures(run: AnyRun, summary: ReportSummary) -> None:
    """Raise TooManyFailuresError where a larger share of the pairs failed than `execution.allowed_failures`."""
    failed = summary.counts.get("failed", 0)
    total = sum(summary.counts.values()) - summary.counts.get("invalid", 0)
    if not total:
        raise TooManyFailuresError(f"all rows of the manifest are invalid; the report says why: {summary.report_url}", summary.run_id)
    if failed and failed > run.execution.allowed_failures * total:
        raise TooManyFailuresError(
            f"{failed} of {total} rows failed, more than execution.allowed_failures = {run.execution.allowed_failures:g}; "
            f"the report says why: {summary.report_url}",
            summary.run_id,
        )
