"""Of a picture that is forgotten: what catalogues made of it, and of adapters that were learned from it; the same of a LoRA file."""

from collections.abc import Set
from datetime import UTC, datetime

from pydantic import Field

from pairlora.catalogue.collection import read_adapters, read_asset_jobs
from pairlora.catalogue.records import (
    AssetJob,
    FinishedAsset,
    ForeignRecord,
    InversionRecord,
    PlannedAdapter,
    PlannedAsset,
    StyledRecord,
    StyledReference,
)
from pairlora.catalogue.runs import rebuild_catalogue_report
from pairlora.records import Outcome, Record, ScoreRecord, Tombstone
from pairlora.store.keys import CATALOGUE
from pairlora.store.parts import decode_records, encode_records
from pairlora.store.run_store import RunStore


class DerivedAssets(Record):
    """All that catalogues hold because of one picture, or LoRA file.

    The picture is one of their assets, masks or truths, or one that an adapter was learned from; such adapters go as files too.
    """

    styled: tuple[StyledRecord, ...] = ()
    inversions: tuple[InversionRecord, ...] = ()
    scores: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()
    rows: dict[str, tuple[int, ...]] = Field(default_factory=dict, description="rows of catalogues that read the picture, by run")
    adapters: tuple[str, ...] = Field(default=(), description="fingerprints of adapters that were learned from it, files among them")
    files: tuple[ForeignRecord, ...] = Field(default=(), description="LoRA files that are it, or were exported from such an adapter")
    runs: tuple[str, ...] = Field(default=(), description="runs that show any of this")


def find_derived_assets(store: RunStore, picture: str, learned: Set[str]) -> DerivedAssets:
    """All that follows from the picture or LoRA file of this digest, and from the adapters that were learned from it."""
    kept = store.read_markers("foreign", store.list_done("foreign"), ForeignRecord)
    files = {key: one for key, one in kept.items() if one.sha256 == picture or one.trained_as in learned}
    learned = learned | files.keys()
    parts = {run_id: store.read_parts(run_id) for run_id in store.list_runs(CATALOGUE)}
    rows = {run_id: tuple(job.row for job in read_asset_jobs(read) if _reads(job, picture)) for run_id, read in parts.items()}
    drawn = {run_id for run_id, read in parts.items() if any(one.fingerprint in learned for one in read_adapters(read))}
    shown = {run_id: _read_references(read) for run_id, read in parts.items()}
    lost = {one.styled_id for run_id, found in shown.items() for one in found if one.row in rows[run_id]}
    styled = store.read_markers("styled", store.list_done("styled"), StyledRecord)
    gone = {key for key, one in styled.items() if one.fingerprint in learned or one.image_sha256 == picture or key in lost}
    inversions = store.read_markers("inversion", store.list_done("inversion"), InversionRecord).values()
    scores = store.read_markers("score", store.list_done("score"), ScoreRecord)
    judged = {one.score_id for found in shown.values() for one in found if one.fingerprint in learned or one.styled_id in gone}
    finished = store.read_markers("asset", store.list_done("asset"), FinishedAsset)
    return DerivedAssets(
        styled=tuple(styled[key] for key in sorted(gone)),
        inversions=tuple(one for one in inversions if one.image_sha256 == picture),
        scores=tuple(sorted(key for key, one in scores.items() if one.image_id in gone or key in judged)),
        finished=tuple(sorted(key for key, one in finished.items() if any(_is_gone(ref, gone, learned) for ref in one.references))),
        rows={run_id: found for run_id, found in rows.items() if found},
        adapters=tuple(sorted(learned)),
        files=tuple(files.values()),
        runs=tuple(run_id for run_id in parts if rows[run_id] or run_id in drawn),
    )


def forget_derived_assets(store: RunStore, derived: DerivedAssets) -> None:
    """Remove what was found, the plans of runs last: a removal that was cut short is found again by them.

    LoRA files get tombstones, so that no catalogue is drawn with them again.
    """
    for one in derived.files:
        store.add_tombstone(one.sha256, Tombstone(sha256=one.sha256, forgotten_at=datetime.now(UTC)))
    for run_id in derived.runs:
        store.drop_report(run_id)
    for key in derived.finished:
        store.drop_marker("asset", key)
    for key in derived.scores:
        store.drop_marker("score", key)
    for one in derived.styled:
        store.drop_marker("styled", one.styled_id)
        store.drop_payload(one.url)
    for one in derived.inversions:
        store.drop_marker("inversion", one.inversion_id)
        store.drop_payload(one.url)
    for one in derived.files:
        store.drop_payload(one.url)
    for run_id in derived.runs:
        _drop_from_run(store, run_id, set(derived.rows.get(run_id, ())), set(derived.adapters))
        rebuild_catalogue_report(store, run_id)
    for one in derived.files:
        store.drop_marker("foreign", one.fingerprint)


def _is_gone(reference: StyledReference, gone: Set[str], learned: Set[str]) -> bool:
    return reference.styled_id in gone or reference.fingerprint in learned


def _reads(job: AssetJob, picture: str) -> bool:
    return any(digest == picture for _, digest in job.pictures)


def _read_references(parts: dict[str, bytes]) -> list[StyledReference]:
    return [one for name, data in parts.items() if name.endswith(".images") for one in decode_records(data, StyledReference)]


def _drop_from_run(store: RunStore, run_id: str, rows: Set[int], learned: Set[str]) -> None:
    """Take rows and adapters out of all that a run recorded, its plan last."""
    parts = store.read_parts(run_id)
    for name in (name for name in parts if name.endswith(".images")):
        kept = [one for one in decode_records(parts[name], StyledReference) if one.row not in rows and one.fingerprint not in learned]
        store.write_part(run_id, name, encode_records(kept, StyledReference))
    for name in (name for name in parts if name.endswith(".outcomes") and name != "unplanned.outcomes"):
        kept = [one for one in decode_records(parts[name], Outcome) if one.row not in rows]
        store.write_part(run_id, name, encode_records(kept, Outcome))
    adapters = [one for one in read_adapters(parts) if one.fingerprint not in learned]
    planned = [PlannedAdapter(label=one.label, adapter=one.model_dump_json()) for one in adapters]
    store.write_part(run_id, "adapters", encode_records(planned, PlannedAdapter))
    jobs = [job for job in read_asset_jobs(parts) if job.row not in rows]
    store.write_part(
        run_id, "plan", encode_records([PlannedAsset(asset_id=job.row_id, job=job.model_dump_json()) for job in jobs], PlannedAsset)
    )
