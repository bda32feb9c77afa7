"""Since last time: which pairs became better or worse than in the previous finished run of the same manifest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pairlora.config import EvaluateConfig
from pairlora.measures import bootstrap_mean
from pairlora.records import RunRecord
from pairlora.report.collection import PairContents, RunContents, Settled, ShownImage, collect_run
from pairlora.report.verdicts import SEVERITY, Finding, find_out
from pairlora.store.run_store import RunStore
from pairlora.store.urls import name_url

Kind = Literal["worse", "changed", "better"]
KINDS: tuple[Kind, ...] = ("worse", "changed", "better")
COMPARED = ("direction", "structure_ssim")
LEAST_DIFFERENCE = 0.01
"""A mean that moved by less is the same to any eye, however sure the move is."""
LISTED_CHANGES = 40
"""Changed pairs that are shown with pictures; the others are counted."""


@dataclass(frozen=True)
class Difference:
    """The mean of a metric now minus then, over equal prompts and seeds, each at its own recommended strength, with its 95 % interval."""

    metric: str
    value: float
    low: float
    high: float

    @property
    def side(self) -> int:
        """1 where it surely rose, -1 where it surely fell, else 0."""
        if abs(self.value) < LEAST_DIFFERENCE or self.low <= 0 <= self.high:
            return 0
        return 1 if self.value > 0 else -1


@dataclass(frozen=True)
class Change:
    """A pair that is not what it was: its verdicts (else statuses) then and now, by how many grades it fell, what moved.

    `pictures` are one of each side at the same prompt and seed; null beyond the changes that are shown.
    """

    kind: Kind
    pair_id: str
    then: str
    now: str
    fall: int
    differences: tuple[Difference, ...]
    pictures: tuple[ShownImage, ShownImage] | None

    @property
    def place(self) -> tuple[int, int, float]:
        """For sorting: the kind, then how far the verdict fell, then how far the metrics did; the largest loss comes first."""
        return (KINDS.index(self.kind), -self.fall, sum(one.value for one in self.differences))


@dataclass(frozen=True)
class Comparison:
    """A run beside the previous one of its manifest, the pairs that became worse first."""

    run: RunRecord
    changes: tuple[Change, ...]
    added: tuple[str, ...]
    gone: tuple[str, ...]
    unchanged: int

    def count(self, kind: Kind) -> int:
        """How many pairs changed in this way."""
        return sum(change.kind == kind for change in self.changes)


class Comparer:
    """Puts the pairs of a run, as they come, beside those of the previous one. Both sides are judged by this run's rules."""

    def __init__(self, store: RunStore, contents: RunContents, evaluate: EvaluateConfig):
        self._evaluate = evaluate
        record = find_previous(store, contents.run)
        self._previous = collect_run(store, record) if record else None
        self._before = _find_planned(self._previous) if self._previous else {}
        self._after = _find_planned(contents)
        self._contents = contents
        self._changes: list[Change] = []

    def add(self, pairs: Sequence[PairContents], findings: Sequence[Finding]) -> None:
        """Compare some pairs; `findings` are theirs, in their order. Of the previous run those alone are read that may have changed."""
        if self._previous is None:
            return
        found = {pair.pair_id: (pair, finding) for pair, finding in zip(pairs, findings, strict=True) if pair.job}
        rows = [self._before[pair_id] for pair_id in found if pair_id in self._before and self._may_differ(pair_id)]
        for before in self._previous.read_pairs(rows):
            after, finding = found[before.pair_id]
            if is_other(before, after) and (change := compare_pair(before, after, finding, self._evaluate)):
                self._changes.append(change)
        self._changes.sort(key=lambda change: change.place)
        self._changes[LISTED_CHANGES:] = [replace(change, pictures=None) for change in self._changes[LISTED_CHANGES:]]

    def _may_differ(self, pair_id: str) -> bool:
        """Whether the two runs end differently or name other pictures or scores, before any marker is read."""
        before, after = self._before[pair_id], self._after[pair_id]
        if self._previous is None or before.is_done != after.is_done:
            return True
        named = ((run.list_references(row)) for run, row in ((self._previous, before), (self._contents, after)))
        then, now = ({(one.image_id, one.score_id) for one in references} for references in named)
        return then != now

    def finish(self) -> Comparison | None:
        """What changed, once all pairs are added; null where there was no previous run."""
        if self._previous is None:
            return None
        return Comparison(
            run=self._previous.run,
            changes=tuple(self._changes),
            added=tuple(sorted(self._after.keys() - self._before.keys())),
            gone=tuple(sorted(self._before.keys() - self._after.keys())),
            unchanged=len(self._before.keys() & self._after.keys()) - len(self._changes),
        )


def _find_planned(contents: RunContents) -> dict[str, Settled]:
    """The rows of a run that were pairs, by id."""
    return {row.outcome.pair_id: row for row in contents.rows if row.job}


def find_previous(store: RunStore, run: RunRecord) -> RunRecord | None:
    """The newest finished run before this one of the same manifest: its URL, else its file name.

    One that evaluates adapters again stands beside the run that they come from, and no other run beside it. Null where the
    two measure with another CLIP: their values cannot be compared.
    """
    earlier = []
    for run_id in [run.rescored] if run.rescored else reversed(store.list_runs()):
        record = store.read_run(run_id, RunRecord) if run_id != run.run_id else None
        if record is None or not is_comparable(record, run):
            continue
        if record.manifest == run.manifest:
            return record
        if name_url(record.manifest).rsplit("/", 1)[-1] == name_url(run.manifest).rsplit("/", 1)[-1]:
            earlier.append(record)
    return earlier[0] if earlier else None


def is_comparable(earlier: RunRecord, run: RunRecord) -> bool:
    """Whether a run can stand beside this one: finished before it, measured by the same CLIP, no other evaluation of adapters."""
    finished = earlier.finished_at is not None and earlier.started_at < run.started_at
    alike = all(earlier.config["evaluate"][name] == run.config["evaluate"][name] for name in ("clip", "clip_revision"))
    return finished and alike and (earlier.rescored is None or earlier.run_id == run.rescored)


def is_other(before: PairContents, after: PairContents) -> bool:
    """Whether there is anything to compare: a run that reused all has the same pictures and the same scores."""

    def identify(pair: PairContents) -> set[tuple[str, str]]:
        return {(image.record.image_id, image.scores.score_id if image.scores else "") for image in pair.images}

    return is_done(before) != is_done(after) or identify(before) != identify(after)


def is_done(pair: PairContents) -> bool:
    """Whether a pair came to its end."""
    return pair.outcome.status in ("done", "reused")


def compare_pair(before: PairContents, after: PairContents, found_after: Finding, evaluate: EvaluateConfig) -> Change | None:
    """The change of a pair; null where nothing moved that anybody would see."""
    found_before = find_out(before, evaluate)
    cells = match_cells(before, after, found_before, found_after)
    differences = tuple(one for metric in COMPARED if (one := measure_difference(metric, cells, evaluate)))
    fall = fall_of(found_before, found_after)
    kind = name_change(fall, {one.side for one in differences})
    if is_done(before) != is_done(after):
        kind = "worse" if is_done(before) else "better"
    if kind is None:
        return None
    then, now = (found.judgement.verdict or pair.outcome.status for found, pair in ((found_before, before), (found_after, after)))
    return Change(kind, after.pair_id, then, now, fall, differences, cells[0] if cells else None)


def fall_of(before: Finding, after: Finding) -> int:
    """By how many grades the verdict fell, negative where it rose; a pair that has none any more fell below all."""
    then, now = (SEVERITY.get(finding.judgement.verdict or "", 3) for finding in (before, after))
    return now - then


def name_change(fall: int, sides: set[int]) -> Kind | None:
    """The verdict decides; where it stands, the metrics that surely moved, if they agree."""
    if fall:
        return "worse" if fall > 0 else "better"
    moved = sides - {0}
    if len(moved) > 1:
        return "changed"
    return None if not moved else "better" if moved == {1} else "worse"


def match_cells(
    before: PairContents, after: PairContents, found_before: Finding, found_after: Finding
) -> list[tuple[ShownImage, ShownImage]]:
    """Pictures of equal prompt and seed, each at the strength that its run recommends; where one recommends none, at the other's."""
    then, now = found_before.summary.recommended_strength, found_after.summary.recommended_strength
    old, new = pick(before, now if then is None else then), pick(after, then if now is None else now)
    return [(old[cell], image) for cell, image in new.items() if cell in old]


def pick(pair: PairContents, strength: float | None) -> dict[tuple[str, int], ShownImage]:
    """The pictures at a strength, by prompt and seed."""
    return {(image.record.prompt, image.record.seed): image for image in pair.images if strength and image.strength == strength}


def measure_difference(metric: str, cells: list[tuple[ShownImage, ShownImage]], evaluate: EvaluateConfig) -> Difference | None:
    """The paired difference of a metric; null where no cell has it on both sides."""
    values = [(old.values.get(metric), new.values.get(metric)) for old, new in cells]
    differences = [new - old for old, new in values if old is not None and new is not None]
    return Difference(metric, *bootstrap_mean(differences, evaluate.bootstrap_samples, evaluate.bootstrap_seed)) if differences else None
