"""Everything that a run left in the store, gathered for its report: what became of each row at once, the pairs batch by batch."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain

from pairlora.records import AdapterRecord, ImageRecord, ImageReference, Job, Outcome, PlannedJob, Review, RunRecord, ScoreRecord
from pairlora.report.references import References
from pairlora.review.decisions import read_reviews
from pairlora.store.parts import AnyRecord, decode_records
from pairlora.store.run_store import RunStore

PLAN_PART = "plan"
LOST_PART = "lost.outcomes"
UNPLANNED_PART = "unplanned.outcomes"
OUTCOMES_SUFFIX = ".outcomes"
PAIRS_AT_ONCE = 100
"""Pairs that are read at a time: enough to keep all threads of a store busy, few enough for any machine."""
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class ShownImage:
    """A picture that the run shows for a pair, with its scores as a picture of that pair."""

    record: ImageRecord
    scores: ScoreRecord | None
    is_cut: bool = False

    @property
    def strength(self) -> float | None:
        """Strength λ of style guidance, 0 for an unstyled picture; null where the adapter was a plain LoRA."""
        return self.record.strength if self.record.lora_weight is None else None

    @property
    def lora_weight(self) -> float | None:
        """Weight of the adapter as a plain LoRA; null for all other pictures."""
        return self.record.lora_weight

    @property
    def values(self) -> Mapping[str, float | None]:
        """Raw values by metric; empty where the picture was not scored."""
        return self.scores.scores if self.scores else {}


@dataclass(frozen=True)
class PairContents:
    """One row of the manifest: what became of it, and what there is to show. A row that is invalid has no job.

    `tries` are all tries of the run at it, in the order of their beginning.
    """

    outcome: Outcome
    job: Job | None = None
    adapter: AdapterRecord | None = None
    images: tuple[ShownImage, ...] = ()
    reviews: tuple[Review, ...] = ()
    tries: tuple[Outcome, ...] = ()

    @property
    def decision(self) -> Review | None:
        """What a person decided last on this adapter."""
        return self.reviews[-1] if self.reviews else None

    @property
    def pair_id(self) -> str:
        return self.outcome.pair_id

    @property
    def row(self) -> int:
        return self.outcome.row

    @property
    def strengths(self) -> tuple[float, ...]:
        """Strengths that were drawn, in ascending order."""
        return tuple(sorted({strength for image in self.images if (strength := image.strength) is not None}))

    @property
    def lora_weights(self) -> tuple[float, ...]:
        """Weights that the adapter was drawn with as a plain LoRA, in ascending order."""
        return tuple(sorted({weight for image in self.images if (weight := image.lora_weight) is not None}))

    @property
    def cut_prompts(self) -> tuple[str, ...]:
        """Prompts that are longer in some picture than the base reads."""
        return tuple(dict.fromkeys(image.record.prompt for image in self.images if image.is_cut))


@dataclass(frozen=True)
class Settled:
    """A row of the manifest as the parts of a run tell of it, without anything that markers say.

    `tries` are all tries of the run at it, in the order of their beginning; `shard` names the one whose pictures are shown.
    """

    outcome: Outcome
    job: Job | None = None
    tries: tuple[Outcome, ...] = ()
    shard: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the pair came to its end."""
        return self.outcome.status in ("done", "reused")


class RunContents:
    """A run and its rows, in the order of the manifest; `tries` are all tries at them, in the order of their beginning.

    Pairs are read a batch at a time, since the losses and scores of all pairs of a large night are more than memory holds.
    """

    def __init__(self, store: RunStore, run: RunRecord, parts: Mapping[str, bytes]):
        jobs = {job.pair.row: job for job in read_jobs(parts)}
        begun = _read_tries(parts)
        self.run = run
        self.tries = tuple(sorted((one.outcome for one in begun if one.outcome.attempt), key=_begin))
        self.rows = _add_tries(_settle(parts, jobs, begun), jobs, self.tries)
        self._store = store
        self._references = References(parts)
        self._reviews = read_reviews(store, {row.outcome.fingerprint for row in self.rows if row.outcome.fingerprint})

    def list_references(self, row: Settled) -> tuple[ImageReference, ...]:
        """The pictures that the run shows for a row, whether their markers are there or not."""
        return self._references.find(row.shard, row.outcome.pair_id)

    def read_pairs(self, rows: Sequence[Settled] | None = None) -> Iterator[PairContents]:
        """The pairs of some rows, of all where left out, each with what the store holds of it."""
        return (pair for batch in self.read_batches(rows) for pair in batch)

    def read_batches(self, rows: Sequence[Settled] | None = None) -> Iterator[list[PairContents]]:
        """The same in batches, whose markers are read side by side."""
        rows = self.rows if rows is None else rows
        for start in range(0, len(rows), PAIRS_AT_ONCE):
            yield self._read(rows[start : start + PAIRS_AT_ONCE])

    def _read(self, rows: Sequence[Settled]) -> list[PairContents]:
        shown = [self.list_references(row) for row in rows]
        references = list(chain.from_iterable(shown))
        images = _read_images(self._store, references)
        scores = self._store.read_markers("score", (reference.score_id for reference in references), ScoreRecord)
        adapters = self._store.read_markers("adapter", (one for row in rows if (one := row.outcome.fingerprint)), AdapterRecord)

        def collect_pair(row: Settled, references: Sequence[ImageReference]) -> PairContents:
            outcome, adapter = row.outcome, adapters.get(row.outcome.fingerprint)
            pictures = tuple(
                ShownImage(images[reference.image_id], scores.get(reference.score_id), reference.is_cut)
                for reference in references
                if reference.image_id in images
            )
            return PairContents(
                outcome=_sum_up(row, adapter, pictures, self.run.run_id),
                job=row.job,
                adapter=adapter,
                images=pictures,
                reviews=tuple(self._reviews.get((outcome.pair_id, outcome.fingerprint), ())) if adapter else (),
                tries=row.tries,
            )

        return list(map(collect_pair, rows, shown))


def collect_run(store: RunStore, run: RunRecord) -> RunContents:
    """All that the report of a run shows."""
    return RunContents(store, run, store.read_parts(run.run_id))


def _decode(parts: Mapping[str, bytes], name: str, kind: type[AnyRecord]) -> list[AnyRecord]:
    return decode_records(parts[name], kind) if name in parts else []


def read_jobs(parts: Mapping[str, bytes]) -> list[Job]:
    """The jobs that a run planned, from its parts."""
    return [Job.model_validate_json(planned.job) for planned in _decode(parts, PLAN_PART, PlannedJob)]


def _settle(parts: Mapping[str, bytes], jobs: Mapping[int, Job], tries: Sequence[Settled]) -> dict[int, Settled]:
    """What became of each row of the manifest, by row; a row that nothing is known of is pending.

    Rows rather than ids, since a row is invalid where it repeats the id of another. Where several tries name one pair, the
    last one that ended counts; what was found finished counts over what a portion lost. Over the shards stand the pairs whose
    worker was lost, which keep the pictures of an earlier try, and over these what the newest plan could not plan.
    """
    settled = {row: Settled(_await(job)) for row, job in jobs.items()}
    for one in sorted(tries, key=lambda one: (_begin(one.outcome), one.outcome.status == "reused")):
        job = jobs.get(one.outcome.row)
        if job is not None and job.fingerprint == one.outcome.fingerprint and one.outcome.status != "pending":
            settled[one.outcome.row] = one
    for outcome in _decode(parts, LOST_PART, Outcome):
        settled[outcome.row] = Settled(outcome, shard=settled[outcome.row].shard if outcome.row in settled else "")
    return settled | {outcome.row: Settled(outcome) for outcome in read_unplanned(parts)}


def _add_tries(settled: Mapping[int, Settled], jobs: Mapping[int, Job], tries: Iterable[Outcome]) -> tuple[Settled, ...]:
    tries_of = defaultdict(list)
    for one in tries:
        tries_of[one.row, one.fingerprint].append(one)
    return tuple(
        replace(one, job=jobs.get(row), tries=tuple(tries_of[row, one.outcome.fingerprint])) for row, one in sorted(settled.items())
    )


def _begin(outcome: Outcome) -> datetime:
    return outcome.started_at or NEVER


def read_unplanned(parts: Mapping[str, bytes]) -> list[Outcome]:
    """The rows of the manifest that a run could not plan, from its parts."""
    return _decode(parts, UNPLANNED_PART, Outcome)


def _read_tries(parts: Mapping[str, bytes]) -> list[Settled]:
    """All tries at all pairs, and what was finished before the first of them."""
    names = {name for name in parts if name.endswith(OUTCOMES_SUFFIX)} - {LOST_PART, UNPLANNED_PART}
    return [
        Settled(outcome, shard=name.removesuffix(OUTCOMES_SUFFIX)) for name in sorted(names) for outcome in _decode(parts, name, Outcome)
    ]


def _sum_up(row: Settled, adapter: AdapterRecord | None, images: Sequence[ShownImage], run: str) -> Outcome:
    """An outcome with what all tries of the run did for the pair.

    What a process made that was killed before it could say so is known from the markers, which name the run and the pair.
    """
    settled, tries = row.outcome, row.tries
    origin = f"{run}/{settled.pair_id}"
    trained = any(one.trained for one in tries) or (adapter is not None and adapter.made_for == origin)
    drawn = max(sum(one.images_drawn for one in tries), sum(image.record.made_for == origin for image in images))
    begun = [one.started_at for one in (settled, *tries) if one.started_at]
    return settled.model_copy(
        update={
            "status": settled.status if not row.is_done else "done" if trained or drawn else "reused",
            "attempts": len(tries),
            "trained": trained,
            "images_drawn": drawn,
            "images_reused": len(images) - drawn if row.is_done else settled.images_reused,
            "started_at": min(begun, default=None),
            **{name: sum(getattr(one, name) for one in tries) for name in ("train_seconds", "draw_seconds", "score_seconds")},
            "peak_memory_bytes": max((one.peak_memory_bytes for one in tries), default=0),
        }
    )


def _await(job: Job) -> Outcome:
    return Outcome(pair_id=job.pair.pair_id, row=job.pair.row, status="pending", fingerprint=job.fingerprint, attempts=0)


def _read_images(store: RunStore, references: Iterable[ImageReference]) -> dict[str, ImageRecord]:
    references = list(references)
    baselines = [reference.image_id for reference in references if reference.is_unstyled]
    styled = [reference.image_id for reference in references if not reference.is_unstyled]
    return store.read_markers("baseline", baselines, ImageRecord) | store.read_markers("image", styled, ImageRecord)
