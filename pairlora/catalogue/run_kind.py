"""A run over a catalogue as a fleet sees it: its plan read back from the store, and its identities checked on the machine that works."""

from collections.abc import Container

from pairlora.bases.loading import digest_base
from pairlora.catalogue.collection import read_adapters, read_asset_jobs
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.planning import cut_shards, find_finished_assets, identify_job, leave_out
from pairlora.catalogue.records import CataloguePlan
from pairlora.catalogue.runs import read_catalogue_record, write_finished_assets
from pairlora.errors import ConfigError
from pairlora.execution.finished import describe_encoders
from pairlora.execution.run_kinds import SAME_MACHINES
from pairlora.store.keys import Kind
from pairlora.store.run_store import RunStore


class AssetRuns:
    """Runs that draw an asset a row."""

    noun = "asset"
    marker: Kind = "asset"

    def read_plan(self, run: CatalogueConfig, store: RunStore, run_id: str) -> CataloguePlan:
        record = read_catalogue_record(store, run_id)
        parts = {name: part for name in ("plan", "adapters") if (part := store.read_part(run_id, name)) is not None}
        adapters = read_adapters(parts)
        return CataloguePlan(
            run_id=run_id,
            started_at=record.started_at,
            manifest=record.manifest,
            manifest_sha256=record.manifest_sha256,
            base_digest=digest_base(run.base.name, run.base.revision, run.base.config),
            adapters=adapters,
            shards=cut_shards(read_asset_jobs(parts), adapters, run.shard_assets),
        )

    def check_machine(self, run: CatalogueConfig, plan: CataloguePlan) -> None:
        encoders = describe_encoders(run.evaluate)
        for job in plan.jobs:
            if identify_job(job, run, plan.adapters, plan.base_digest, encoders) != job.fingerprint:
                raise ConfigError(
                    f"{job.row_id} would be drawn or measured otherwise here than was planned: base '{run.base.name}', another model, or "
                    f"the version of pairlora or transformers differs from that of the machine that planned; {SAME_MACHINES}"
                )

    def identify_rows(self, run: CatalogueConfig, plan: CataloguePlan) -> dict[int, str]:
        return {job.row: job.fingerprint for job in plan.jobs}

    def leave_out(self, plan: CataloguePlan, rows: Container[int]) -> CataloguePlan:
        return plan.model_copy(update={"shards": leave_out(plan.shards, rows)})

    def keep_finished(self, run: CatalogueConfig, store: RunStore, plan: CataloguePlan, part: str) -> CataloguePlan:
        finished = find_finished_assets(store, plan)
        write_finished_assets(store, plan.run_id, finished, part)
        return plan.model_copy(update={"shards": finished.leave_out(plan.shards)})


ASSETS = AssetRuns()
