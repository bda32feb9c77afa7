"""Everything that a run over a catalogue left in the store, gathered for its report."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pairlora.catalogue.records import AssetJob, ChosenAdapter, PlannedAdapter, PlannedAsset, StyledRecord, StyledReference
from pairlora.records import Outcome, RunRecord, ScoreRecord
from pairlora.store.parts import AnyRecord, decode_records
from pairlora.store.run_store import RunStore

NEVER = datetime.min.replace(tzinfo=UTC)
OVER_TRIES = ("lost.outcomes", "unplanned.outcomes")
"""Parts that stand over what shards say of themselves."""


@dataclass(frozen=True)
class StyledImage:
    """A picture that the run shows for an asset and an adapter, with its scores as such."""

    reference: StyledReference
    record: StyledRecord
    values: Mapping[str, float | None]
    encoders: Mapping[str, str]


@dataclass(frozen=True)
class Told:
    """What one part of a run tells of an asset; `part` names it without its suffix, and its pictures stand under that name."""

    outcome: Outcome
    part: str = ""


@dataclass(frozen=True)
class AssetContents:
    """One row of the catalogue: what became of it, and what there is to show. A row that is invalid has no job."""

    outcome: Outcome
    job: AssetJob | None = None
    images: tuple[StyledImage, ...] = ()

    @property
    def styled(self) -> tuple[StyledImage, ...]:
        """The pictures of some strength."""
        return tuple(image for image in self.images if image.reference.strength)

    @property
    def reconstruction(self) -> StyledImage | None:
        """The picture of strength 0, which all adapters share."""
        return next((image for image in self.images if not image.reference.strength), None)


@dataclass(frozen=True)
class CatalogueContents:
    """A run and its assets, in the order of the catalogue."""

    run: RunRecord
    adapters: tuple[ChosenAdapter, ...]
    assets: tuple[AssetContents, ...]


def collect_catalogue(store: RunStore, run: RunRecord) -> CatalogueContents:
    """All that the report of a run shows, read in bulk."""
    parts = store.read_parts(run.run_id)
    jobs = {job.row: job for job in read_asset_jobs(parts)}
    tries = _read_tries(parts)
    settled = _settle(parts, jobs, tries)
    told = _read_references(parts)
    shown = {row: told[one.part, row] for row, one in settled.items() if one.outcome.status in ("done", "reused")}
    references = [reference for found in shown.values() for reference in found]
    records = store.read_markers("styled", (reference.styled_id for reference in references), StyledRecord)
    scores = store.read_markers("score", (reference.score_id for reference in references), ScoreRecord)

    def show(reference: StyledReference) -> StyledImage:
        scored = scores.get(reference.score_id)
        found = (scored.scores, scored.encoders) if scored else ({}, {})
        return StyledImage(reference, records[reference.styled_id], *found)

    tries_of = defaultdict(list)
    for one in (one.outcome for one in tries):
        tries_of[one.row, one.fingerprint].append(one)
    assets = [
        AssetContents(
            outcome=_sum_up(one.outcome, tries_of[row, one.outcome.fingerprint]),
            job=jobs.get(row),
            images=tuple(show(reference) for reference in shown.get(row, ()) if reference.styled_id in records),
        )
        for row, one in sorted(settled.items())
    ]
    return CatalogueContents(run, read_adapters(parts), tuple(assets))


def read_asset_jobs(parts: Mapping[str, bytes]) -> list[AssetJob]:
    """The jobs that a run planned, from its parts."""
    return [AssetJob.model_validate_json(one.job) for one in _decode(parts, "plan", PlannedAsset)]


def read_adapters(parts: Mapping[str, bytes]) -> tuple[ChosenAdapter, ...]:
    """The adapters that a run draws with, from its parts."""
    return tuple(ChosenAdapter.model_validate_json(one.adapter) for one in _decode(parts, "adapters", PlannedAdapter))


def _decode(parts: Mapping[str, bytes], name: str, kind: type[AnyRecord]) -> list[AnyRecord]:
    return decode_records(parts[name], kind) if name in parts else []


def _read_tries(parts: Mapping[str, bytes]) -> list[Told]:
    """All tries at all assets, in the order of their beginning; before the first come shards that were lost, then what was finished."""
    names = sorted(name for name in parts if name.endswith(".outcomes") and name not in OVER_TRIES)
    told = (Told(one, name.removesuffix(".outcomes")) for name in names for one in _decode(parts, name, Outcome))
    return sorted(told, key=lambda one: (one.outcome.started_at or NEVER, one.outcome.status == "reused"))


def _settle(parts: Mapping[str, bytes], jobs: Mapping[int, AssetJob], tries: list[Told]) -> dict[int, Told]:
    """What became of each row of the catalogue, by row: the last try that ended; a row that nothing is known of is pending."""
    settled = {
        row: Told(Outcome(pair_id=job.row_id, row=row, status="pending", fingerprint=job.fingerprint, attempts=0))
        for row, job in jobs.items()
    }
    for told in tries:
        one = told.outcome
        if one.row in jobs and jobs[one.row].fingerprint == one.fingerprint and one.status != "pending":
            settled[one.row] = told
    return settled | {outcome.row: Told(outcome) for name in OVER_TRIES for outcome in _decode(parts, name, Outcome)}


def _read_references(parts: Mapping[str, bytes]) -> dict[tuple[str, int], list[StyledReference]]:
    """The pictures that each part shows, by its name and the row."""
    found = defaultdict(list)
    for name in (name for name in parts if name.endswith(".images")):
        for reference in _decode(parts, name, StyledReference):
            found[name.removesuffix(".images"), reference.row].append(reference)
    return found


def _sum_up(settled: Outcome, tries: list[Outcome]) -> Outcome:
    """An outcome with what all tries of the run did for the asset."""
    drawn = sum(one.images_drawn for one in tries)
    status = "done" if settled.status == "reused" and drawn else settled.status
    seconds = {name: sum(getattr(one, name) for one in tries) for name in ("draw_seconds", "score_seconds")}
    return settled.model_copy(
        update={"status": status, "attempts": len([one for one in tries if one.attempt]), "images_drawn": drawn, **seconds}
    )
