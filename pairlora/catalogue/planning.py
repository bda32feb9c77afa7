"""From a catalogue to shards: digests, identities, and which assets are finished already."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pairlora.catalogue.adapters import choose_adapters
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.identities import identify_asset
from pairlora.catalogue.manifest import load_assets
from pairlora.catalogue.records import Asset, AssetJob, AssetShard, CataloguePlan, ChosenAdapter, FinishedAsset, StyledReference
from pairlora.errors import ConfigError, PairloraError
from pairlora.execution.digests import PictureDigests, digest_pictures
from pairlora.execution.finished import describe_encoders
from pairlora.execution.planning import continue_run, cut, describe_bad_row, refuse_forgotten
from pairlora.identity import digest_record
from pairlora.manifest.reading import digest_manifest
from pairlora.records import Outcome, RunRecord
from pairlora.store.keys import CATALOGUE
from pairlora.store.run_store import RunStore

NOT_DECISIVE = {"manifest", "output", "execution", "fleet", "adapters", "style_templates", "partial", "shard_assets", "batch_assets"}
"""Settings that change no result, or that are told by their digests; a run goes on where they were changed."""


def plan_catalogue(run: CatalogueConfig, store: RunStore, base_digest: str, *, remember: bool = False) -> CataloguePlan:
    """Read and check the catalogue, find the adapters, give every asset its identity, and cut the work into shards.

    With `remember` the store keeps LoRA files, and the digests of pictures, so that the next plan reads those alone that changed. Raises
    ManifestError for bad rows, unless the configuration skips them; an asset whose pictures cannot be read is an
    outcome of the plan, not an error.
    """
    assets, bad_rows = load_assets(run.manifest, run.prompt_template, skip_bad_rows=run.execution.skip_bad_rows)
    adapters = choose_adapters(store, run, base_digest, keep=remember)
    encoders = describe_encoders(run.evaluate)
    urls = (url for asset in assets for url in asset.urls)
    digests = digest_pictures(store, run.manifest, urls, run.pictures.max_bytes, remember=remember)
    results = [make_job(asset, run, adapters, base_digest, encoders, digests) for asset in assets]
    tombstones = store.list_tombstones()
    results = [refuse_forgotten(result, tombstones) for result in results]
    started_at = datetime.now(UTC)
    manifest_sha256 = digest_manifest(run.manifest)
    jobs = [result for result in results if isinstance(result, AssetJob)]
    return CataloguePlan(
        run_id=choose_run_id(run, store, manifest_sha256, adapters, started_at),
        started_at=started_at,
        manifest=run.manifest,
        manifest_sha256=manifest_sha256,
        base_digest=base_digest,
        adapters=adapters,
        shards=cut_shards(jobs, adapters, run.shard_assets),
        unplanned=(*map(describe_bad_row, bad_rows), *(result for result in results if isinstance(result, Outcome))),
    )


def make_job(
    asset: Asset,
    run: CatalogueConfig,
    adapters: Sequence[ChosenAdapter],
    base_digest: str,
    encoders: dict[str, str | bool],
    known: PictureDigests,
) -> AssetJob | Outcome:
    """An asset with its digests and identity, or the failed outcome that says which picture cannot be read."""
    try:
        found = {url: known[url] for url in asset.urls}
    except PairloraError as error:
        return fail_asset(asset, error)
    job = AssetJob(
        asset=asset,
        image_sha256=found[asset.image],
        mask_sha256=found[asset.mask] if asset.mask else "",
        truth_sha256={name: found[url] for name, url in asset.truth.items()},
        fingerprint="",
    )
    return job.model_copy(update={"fingerprint": identify_job(job, run, adapters, base_digest, encoders)})


def identify_job(
    job: AssetJob, run: CatalogueConfig, adapters: Sequence[ChosenAdapter], base_digest: str, encoders: dict[str, str | bool]
) -> str:
    """The fingerprint of a job, whatever it says of itself."""
    digests = {"image": job.image_sha256, "mask": job.mask_sha256}
    return identify_asset(run, job.asset, adapters, digests=digests, truths=job.truth_sha256, base_digest=base_digest, encoders=encoders)


def fail_asset(asset: Asset, error: Exception) -> Outcome:
    """The failed outcome of an asset."""
    return Outcome(
        pair_id=asset.asset_id, row=asset.row, status="failed", error_class=type(error).__name__, error_message=str(error), attempts=0
    )


def cut_shards(jobs: Sequence[AssetJob], adapters: tuple[ChosenAdapter, ...], shard_assets: int) -> tuple[AssetShard, ...]:
    """Assets in shards, named by their place and their content."""
    shards = []
    for index, chunk in enumerate(cut(jobs, shard_assets)):
        content = digest_record({"jobs": [[job.asset.asset_id, job.fingerprint] for job in chunk]})
        shards.append(AssetShard(name=f"assets-{index:04d}-{content[:8]}", jobs=tuple(chunk), adapters=adapters))
    return tuple(shards)


def choose_run_id(run: CatalogueConfig, store: RunStore, manifest_sha256: str, adapters: Sequence[ChosenAdapter], now: datetime) -> str:
    """The run named by the configuration, else the newest unfinished one of this catalogue and config, else a new one.

    ConfigError where the named run is one of another catalogue. Ids of catalogue runs begin with `CATALOGUE`.
    """
    if (named := run.output.run_id) is not None:
        run_id = named if named.startswith(CATALOGUE) else CATALOGUE + named
        record = store.read_run(run_id, RunRecord)
        if record is not None and record.manifest_sha256 != manifest_sha256:
            raise ConfigError(f"run {run_id} was made of another catalogue ({record.manifest}); choose another --run-id")
        return run_id
    without = NOT_DECISIVE if run.tiles.most > 1 else NOT_DECISIVE | {"tiles"}  # one piece has no overlap
    decisive = run.model_dump(mode="json", exclude=without)
    inputs = {"manifest": manifest_sha256, "config": decisive, "adapters": [adapter.choice for adapter in adapters]}
    return continue_run(store, digest_record(inputs)[:6], now, CATALOGUE)


@dataclass(frozen=True)
class FinishedAssets:
    """The finished assets of a plan: their outcomes in this run, and the pictures that it shows."""

    outcomes: tuple[Outcome, ...]
    references: tuple[StyledReference, ...]

    def leave_out(self, shards: Sequence[AssetShard]) -> tuple[AssetShard, ...]:
        """The shards without these assets, and without those that have become empty."""
        return leave_out(shards, {outcome.row for outcome in self.outcomes})


def leave_out(shards: Sequence[AssetShard], rows: Container[int]) -> tuple[AssetShard, ...]:
    """The shards without the assets of these rows, and without those that have become empty."""
    left = (shard.model_copy(update={"jobs": tuple(job for job in shard.jobs if job.row not in rows)}) for shard in shards)
    return tuple(shard for shard in left if shard.jobs)


def find_finished_assets(store: RunStore, plan: CataloguePlan, *, forget: bool = True) -> FinishedAssets:
    """The assets of a plan that the store holds whole, by one listing; `forget` those of which something has gone."""
    done = store.list_done("asset").intersection(job.fingerprint for job in plan.jobs)
    if not done:
        return FinishedAssets((), ())
    records = store.read_markers("asset", done, FinishedAsset)
    whole = store.find_whole({key: size for record in records.values() for key, size in record.sizes.items()})
    styled, scored = store.list_done("styled"), store.list_done("score")
    kept = {}
    for key, record in records.items():
        marked = all(one.styled_id in styled and one.score_id in scored for one in record.references)
        if marked and record.sizes.keys() <= whole:
            kept[key] = record
        elif forget:
            store.drop_marker("asset", key)
    found = [(job, kept[job.fingerprint]) for job in plan.jobs if job.fingerprint in kept]
    return FinishedAssets(
        outcomes=tuple(_describe_reuse(job, record) for job, record in found),
        references=tuple(
            one.model_copy(update={"row": job.row, "asset_id": job.row_id}) for job, record in found for one in record.references
        ),
    )


def _describe_reuse(job: AssetJob, record: FinishedAsset) -> Outcome:
    return Outcome(
        pair_id=job.row_id, row=job.row, status="reused", fingerprint=job.fingerprint, attempts=0, images_reused=len(record.sizes)
    )
