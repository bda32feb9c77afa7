"""stylize-catalogue: pictures that exist already in, the same pictures in the styles of trained adapters and a report out."""

from prefect import flow

from flows.customize import THREADS, fan_out
from pairlora.catalogue.config import CatalogueConfig
from pairlora.execution.runs import check_failures
from pairlora.report import ReportSummary
from tasks.credentials import credentials_loaded
from tasks.gpu import stylize_shard
from tasks.notes import note_report
from tasks.storage import plan_catalogue, write_catalogue_report


@flow(name="stylize-catalogue", persist_result=False, task_runner=THREADS)  # pyright: ignore[reportCallIssue, reportArgumentType]
def stylize_catalogue(run: CatalogueConfig) -> ReportSummary:
    """Plan, fan out to the devices, wait for all, report all, then decide whether the run failed."""
    with credentials_loaded(run.output.secret_block):
        plan = plan_catalogue(run)
        lost = fan_out(run, plan, do_shard=stylize_shard)
        summary = write_catalogue_report(run, plan, lost)
        note_report(run, summary)
    check_failures(run, summary)
    return summary
