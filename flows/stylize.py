"""stylize-catalogue: pictures that exist already in, the same pictures in the styles of trained adapters and a report out.

On many machines it is stylize-fleet, with one flow run of stylize-portion on each.
"""

from prefect import flow

from flows.customize import THREADS, fan_out
from flows.shard import do_portion, spread_out
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.run_kind import ASSETS
from pairlora.execution.runs import check_failures
from pairlora.records import Portion
from pairlora.report import ReportSummary
from tasks.credentials import credentials_loaded
from tasks.dispatch import cancel_portions
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


@flow(name="stylize-fleet", persist_result=False, on_cancellation=[cancel_portions])
def stylize_fleet(run: CatalogueConfig) -> ReportSummary:
    """Plan, have the portions done on other machines, wait for all, report all, then decide whether the run failed."""
    with credentials_loaded(run.output.secret_block):
        plan = plan_catalogue(run)
        lost = spread_out(ASSETS, run, plan)
        summary = write_catalogue_report(run, plan, lost)
        note_report(run, summary)
    check_failures(run, summary)
    return summary


@flow(name="stylize-portion", persist_result=False, task_runner=THREADS)  # pyright: ignore[reportCallIssue, reportArgumentType]
def stylize_portion(run: CatalogueConfig, portion: Portion) -> None:
    """Do on this machine what is left of a portion. Who cut it reports on its assets, and decides about failures."""
    do_portion(ASSETS, run, portion, stylize_shard)
