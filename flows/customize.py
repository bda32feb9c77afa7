"""customize-pairs: a manifest of pairs in, adapters, pictures in the new styles and a report out."""

from random import sample

from prefect import Task, flow
from prefect.futures import PrefectFuture, wait
from prefect.task_runners import ThreadPoolTaskRunner

from pairlora.cli.terminal import show_progress
from pairlora.config import AnyRun, RunConfig
from pairlora.errors import NoSpaceError
from pairlora.execution.progress import Listener
from pairlora.execution.runs import check_failures, fail_shard
from pairlora.execution.workers import WorkerPool, parse_devices
from pairlora.records import Outcome, RowPlan, RowShard
from pairlora.report import ReportSummary
from tasks.credentials import credentials_loaded
from tasks.gpu import customize_shard
from tasks.notes import ProgressArtifact, note_report
from tasks.storage import plan_run, write_report

THREADS = ThreadPoolTaskRunner(max_workers=64)  # they wait for devices; the workers are processes


@flow(name="customize-pairs", persist_result=False, task_runner=THREADS)  # pyright: ignore[reportCallIssue, reportArgumentType]
def customize_pairs(run: RunConfig) -> ReportSummary:
    """Plan, fan out to the devices, wait for all, report all, then decide whether the run failed."""
    with credentials_loaded(run.output.secret_block):
        plan = plan_run(run)
        lost = fan_out(run, plan)
        summary = write_report(run, plan, lost)
        note_report(run, summary)
    check_failures(run, summary)
    return summary


def fan_out(run: AnyRun, plan: RowPlan, *listeners: Listener, do_shard: Task = customize_shard) -> list[Outcome]:
    """Do all shards, one task run each; what they did is in the store. Returns the rows of shards that were lost."""
    if not plan.shards:
        return []
    devices = parse_devices(run.execution.devices)[: len(plan.shards)]
    artifact = ProgressArtifact(len(plan.jobs))
    with_retries = do_shard.with_options(retries=run.execution.retries)
    with show_progress(plan) as show, WorkerPool(devices, [show, artifact, *listeners], offline=run.execution.offline) as workers:
        # in an order of its own: a second run of the same manifest begins elsewhere and finds done what this one did
        shards = sample(plan.shards, len(plan.shards))
        futures = [with_retries.submit(workers, shard, run, plan.run_id) for shard in shards]
        wait(futures)
    artifact.finish()
    return [outcome for shard, future in zip(shards, futures, strict=True) for outcome in find_lost(shard, future)]


def find_lost(shard: RowShard, future: PrefectFuture[list[Outcome]]) -> list[Outcome]:
    """One failed outcome a row where a shard failed as a whole, after its retries; else none. A full store ends the run instead."""
    result = future.result(raise_on_failure=False)
    if isinstance(result, NoSpaceError):
        raise result
    return fail_shard(shard, result) if isinstance(result, BaseException) else []
