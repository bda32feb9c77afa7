"""The life of a run over a catalogue in the store: opened with its plan, closed with its report."""

from pairlora.bases.licences import check_licence
from pairlora.bases.loading import CREDITS, digest_base
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.planning import FinishedAssets, find_finished_assets, plan_catalogue
from pairlora.catalogue.records import CataloguePlan, PlannedAdapter, PlannedAsset, StyledReference
from pairlora.catalogue.report import build_catalogue_report
from pairlora.errors import StoreError
from pairlora.execution.runs import finish_run, open_store, record_run
from pairlora.records import Outcome, RunRecord
from pairlora.report import ReportSummary
from pairlora.store.keys import CATALOGUE
from pairlora.store.parts import encode_records
from pairlora.store.run_store import RunStore


def open_catalogue(run: CatalogueConfig) -> CataloguePlan:
    """Plan a run over a catalogue and record it; gives the shards of what is left to do.

    Raises ManifestError, StoreError, ConfigError or LicenceError before anything is done.
    """
    check_licence(run.base)
    if (control := run.entry.net) is not None:
        changes = {"name": control.name, "licence": control.licence, "config": None}
        check_licence(run.base.model_copy(update=changes), "entry.control")
    store = open_store(run)
    plan = plan_catalogue(run, store, digest_base(run.base.name, run.base.revision, run.base.config), remember=True)
    assets = [PlannedAsset(asset_id=job.row_id, job=job.model_dump_json()) for job in plan.jobs]
    adapters = [PlannedAdapter(label=adapter.label, adapter=adapter.model_dump_json()) for adapter in plan.adapters]
    store.write_part(plan.run_id, "plan", encode_records(assets, PlannedAsset))
    store.write_part(plan.run_id, "adapters", encode_records(adapters, PlannedAdapter))
    store.write_part(plan.run_id, "unplanned.outcomes", encode_records(plan.unplanned, Outcome))
    store.write_part(plan.run_id, "lost.outcomes", encode_records([], Outcome))  # those of an earlier attempt are tried again
    finished = find_finished_assets(store, plan)
    write_finished_assets(store, plan.run_id, finished)
    earlier = store.read_run(plan.run_id, RunRecord)
    record = record_run(run, plan)
    store.write_run(plan.run_id, record.model_copy(update={"started_at": earlier.started_at}) if earlier else record)
    return plan.model_copy(update={"shards": finished.leave_out(plan.shards)})


def write_finished_assets(store: RunStore, run_id: str, finished: FinishedAssets, name: str = "finished") -> None:
    """Record what the store held at the beginning; pictures before outcomes."""
    store.write_part(run_id, f"{name}.images", encode_records(finished.references, StyledReference))
    store.write_part(run_id, f"{name}.outcomes", encode_records(finished.outcomes, Outcome))


def read_catalogue_record(store: RunStore, run_id: str) -> RunRecord:
    """The record of a run over a catalogue; StoreError where there is no such run."""
    record = store.read_run(run_id, RunRecord)
    if record is None:
        raise StoreError(f"{store.url} has no run {run_id!r}; its catalogues are: {', '.join(store.list_runs(CATALOGUE)) or 'none'}")
    return record


def rebuild_catalogue_report(store: RunStore, run_id: str) -> ReportSummary:
    """Build the report of a run again from what the store holds; StoreError where there is no such run."""
    record = read_catalogue_record(store, run_id)
    return build_catalogue_report(store, record, credits=CREDITS.get(record.config["base"]["name"], ()))


def close_catalogue(run: CatalogueConfig, plan: CataloguePlan, lost: list[Outcome]) -> ReportSummary:
    """Record the assets of lost shards, which could not do so themselves, build the report, and mark the run as finished."""
    return finish_run(run, plan, lost, build_catalogue_report)
