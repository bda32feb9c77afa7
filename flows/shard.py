"""customize-fleet: a manifest on many machines, one flow run of customize-portion on each, and one report.

`spread_out` and `do_portion` are the fleets and the portions of every kind of run.
"""

from prefect import Task, flow

from flows.customize import THREADS, fan_out
from pairlora.cli.terminal import show_progress
from pairlora.config import RunConfig
from pairlora.execution.fleet import Fleet
from pairlora.execution.portions import Pulse
from pairlora.execution.run_kinds import PAIRS, AnyPlan, Run, RunKind
from pairlora.execution.runs import check_failures
from pairlora.records import Outcome, Portion
from pairlora.report import ReportSummary
from tasks.credentials import credentials_loaded
from tasks.dispatch import FlowRuns, cancel_portions, tag_fleet
from tasks.gpu import customize_shard
from tasks.notes import ProgressArtifact, note_report
from tasks.storage import close_portion, open_portion, plan_run, write_report


@flow(name="customize-fleet", persist_result=False, on_cancellation=[cancel_portions])
def customize_fleet(run: RunConfig) -> ReportSummary:
    """Plan, have the portions done on other machines, wait for all, report all, then decide whether the run failed."""
    with credentials_loaded(run.output.secret_block):
        plan = plan_run(run)
        lost = spread_out(PAIRS, run, plan)
        summary = write_report(run, plan, lost)
        note_report(run, summary)
    check_failures(run, summary)
    return summary


def spread_out(kind: RunKind[Run, AnyPlan], run: Run, plan: AnyPlan) -> list[Outcome]:
    """Have all shards done, in portions; what was done is in the store. Returns the rows of portions that were given up."""
    if not plan.shards:
        return []
    tag_fleet(plan.run_id)
    artifact = ProgressArtifact(len(plan.jobs))
    with show_progress(plan) as show:
        lost = Fleet(kind, run, plan, FlowRuns(run.fleet.deployment), [show, artifact]).do_portions()
    artifact.finish()
    return lost


@flow(name="customize-portion", persist_result=False, task_runner=THREADS)  # pyright: ignore[reportCallIssue, reportArgumentType]
def customize_portion(run: RunConfig, portion: Portion) -> None:
    """Do on this machine what is left of a portion. Who cut it reports on its pairs, and decides about failures."""
    do_portion(PAIRS, run, portion, customize_shard)


def do_portion(kind: RunKind[Run, AnyPlan], run: Run, portion: Portion, do_shard: Task) -> None:
    """Open a portion, do its shards with signs of life all the while, and close it."""
    with credentials_loaded(run.output.secret_block):
        with Pulse(run, portion) as pulse:
            lost = fan_out(run, open_portion(kind, run, portion), pulse, do_shard=do_shard)
        close_portion(run, portion, lost)
