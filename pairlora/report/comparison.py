"""Since last time: which pairs became better or worse than in the previous finished run of the same manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pairlora.config import EvaluateConfig
from pairlora.measures import bootstrap_mean
from pairlora.records import RunRecord
from pairlora.report.collection import PairContents, RunContents, ShownImage, collect_run
from pairlora.report.verdicts import SEVERITY, Finding, find_out
from pairlora.store.run_store import RunStore
from pairlora.store.urls import name_url

Kind = Literal["worse", "changed", "better"]
KINDS: tuple[Kind, ...] = ("worse", "changed", "better")
COMPARED = ("direction", "structure_ssim")
LEAST_DIFFERENCE = 0.01
"""A mean that moved by less is the same to any eye, however sure the move is."""


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
    """A pair that is not what it was: both sides, what moved, and one picture of each side at the same prompt and seed."""

    kind: Kind
    before: PairContents
    after: PairContents
    found_before: Finding
    found_after: Finding
    differences: tuple[Difference, ...]
    pictures: tuple[ShownImage, ShownImage] | None

    @property
    def size(self) -> tuple[int, float]:
        """For sorting: how far the verdict fell, then how far the metrics did; the largest loss is the smallest."""
        return (-fall_of(self.found_before, self.found_after), sum(one.value for one in self.differences))


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


def compare_runs(store: RunStore, contents: RunContents, findings: Sequence[Finding], evaluate: EvaluateConfig) -> Comparison | None:
    """What changed since the previous run; null where there was none. Both sides are judged by this run's rules."""
    record = find_previous(store, contents.run)
    if record is None:
        return None
    previous = {pair.pair_id: pair for pair in collect_run(store, record).pairs if pair.job}
    present = {pair.pair_id: (pair, finding) for pair, finding in zip(contents.pairs, findings, strict=True) if pair.job}
    both = [(previous[pair_id], *found) for pair_id, found in present.items() if pair_id in previous]
    changed = [compare_pair(before, after, finding, evaluate) for before, after, finding in both if is_other(before, after)]
    changes = [change for change in changed if change is not None]
    return Comparison(
        run=record,
        changes=tuple(sorted(changes, key=lambda change: (KINDS.index(change.kind), change.size))),
        added=tuple(sorted(present.keys() - previous.keys())),
        gone=tuple(sorted(previous.keys() - present.keys())),
        unchanged=len(both) - len(changes),
    )


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
    kind = name_change(fall_of(found_before, found_after), {one.side for one in differences})
    if is_done(before) != is_done(after):
        kind = "worse" if is_done(before) else "better"
    if kind is None:
        return None
    return Change(kind, before, after, found_before, found_after, differences, cells[0] if cells else None)


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
