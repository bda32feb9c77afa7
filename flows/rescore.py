"""rescore-run: the adapters of an earlier run evaluated again, with another CLIP, other prompts or other strengths."""

from prefect import flow

from flows.customize import THREADS, fan_out
from pairlora.execution.rescoring import Rescoring
from pairlora.execution.runs import check_failures
from pairlora.report import ReportSummary
from tasks.credentials import credentials_loaded
from tasks.notes import note_report
from tasks.storage import plan_rescoring, write_report


@flow(name="rescore-run", persist_result=False, task_runner=THREADS)  # pyright: ignore[reportCallIssue, reportArgumentType]
def rescore_run(rescoring: Rescoring) -> ReportSummary:
    """Plan from the earlier run, fan out to the devices, wait for all, report all, then decide whether the run failed."""
    with credentials_loaded(rescoring.secret_block):
        run, plan = plan_rescoring(rescoring)
        lost = fan_out(run, plan)
        summary = write_report(run, plan, lost)
        note_report(run, summary)
    check_failures(run, summary)
    return summary
