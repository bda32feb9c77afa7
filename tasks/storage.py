"""Work on the store: plan what a run or a portion of it has to do, and write what became of it. No device is needed."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from pairlora.catalogue import runs as catalogues
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.records import CataloguePlan
from pairlora.config import FleetRun, RunConfig
from pairlora.execution import portions, runs
from pairlora.execution.rescoring import Rescoring, open_rescoring
from pairlora.execution.run_kinds import AnyPlan, Run, RunKind
from pairlora.records import Outcome, Plan, Portion
from pairlora.report import ReportSummary
from tasks.policies import RETRY_DELAYS, STORAGE_RETRIES, is_transient

on_store = task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=STORAGE_RETRIES,
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=is_transient,
)
"""A task that is tried again where the store does not answer."""


@on_store
def plan_run(run: RunConfig) -> Plan:
    """Read the manifest, probe the store, give every pair its identity, and open the run."""
    return runs.open_run(run)


@on_store
def plan_rescoring(rescoring: Rescoring) -> tuple[RunConfig, Plan]:
    """Read the plan of an earlier run, change what is to be different, and open the run; its configuration comes with the plan."""
    return open_rescoring(rescoring)


@on_store
def write_report(run: RunConfig, plan: Plan, lost: list[Outcome]) -> ReportSummary:
    """Record the pairs of lost shards, build tables and page from the store, and close the run."""
    return runs.close_run(run, plan, lost)


@on_store
def open_portion(kind: RunKind[Run, AnyPlan], run: Run, portion: Portion) -> AnyPlan:
    """Read from the store's plan what is left of a portion."""
    return portions.open_portion(kind, run, portion)


@on_store
def close_portion(run: FleetRun, portion: Portion, lost: list[Outcome]) -> None:
    """Record the rows of lost shards, and that the portion is over."""
    portions.close_portion(run, portion, lost)


@on_store
def plan_catalogue(run: CatalogueConfig) -> CataloguePlan:
    """Read the catalogue, probe the store, find the adapters, give every asset its identity, and open the run."""
    return catalogues.open_catalogue(run)


@on_store
def write_catalogue_report(run: CatalogueConfig, plan: CataloguePlan, lost: list[Outcome]) -> ReportSummary:
    """Record the assets of lost shards, build tables and page from the store, and close the run."""
    return catalogues.close_catalogue(run, plan, lost)
