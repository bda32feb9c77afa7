"""The report's first page in numbers: what a card says and is sorted by, the plots over all pairs, what changed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pairlora.config import RunConfig
from pairlora.measures import GAINS, METRICS, Metric
from pairlora.records import Outcome
from pairlora.report.comparison import Change, Comparison
from pairlora.report.distributions import PairPoint, Spread, draw_scatter, draw_spread
from pairlora.report.sections import PairSection, Tile, show_drawn
from pairlora.report.summaries import Summary
from pairlora.report.thumbnails import Thumbnail, Thumbnails

SORTED_BY = ("direction", "structure_ssim", "content_leakage", "style_similarity", "text_alignment")
"""Metrics that the gallery sorts by; a gain on the ground truth joins them where there is one."""
LISTED_CHANGES = 40
"""Changed pairs that are shown with pictures; the others are counted."""


@dataclass(frozen=True)
class ShownChange:
    """A changed pair with its picture then and now."""

    change: Change
    before: Tile | None
    after: Tile | None


def choose_gain(sections: Sequence[PairSection]) -> Metric | None:
    """The gain that the gallery shows: the one by independent features where any pair has it, else the other, else none."""
    found = {one.metric for section in sections for one in section.summary.summaries}
    return next((gain for gain in GAINS.values() if gain.name in found), None)


def list_metrics(gain: Metric | None) -> tuple[Metric, ...]:
    """The metrics that cards hold."""
    return (*(METRICS[name] for name in SORTED_BY), *((gain,) if gain else ()))


def count_verdicts(sections: Iterable[PairSection]) -> dict[str, int]:
    """How many pairs came to each verdict, the best first."""
    found = Counter(section.finding.judgement.verdict for section in sections)
    return {verdict: found[verdict] for verdict in ("accept", "review", "reject") if found[verdict]}


def list_groups(sections: Iterable[PairSection]) -> list[str]:
    """The groups of the manifest, sorted."""
    return sorted({section.pair.job.pair.group for section in sections if section.pair.job and section.pair.job.pair.group})


def sum_seconds(outcomes: Iterable[Outcome]) -> float:
    """Device time of a run."""
    return sum(outcome.train_seconds + outcome.draw_seconds + outcome.score_seconds for outcome in outcomes)


def draw_overview(sections: Sequence[PairSection], run: RunConfig) -> tuple[tuple[str, Markup], ...]:
    """Style against layout with a dot a pair, and how direction and leakage are spread, by verdict; (words, chart), none without scores."""
    points = [
        PairPoint(section.name, f"pairs/{section.pair.pair_id}.html", verdict, direction.value, structure.value)
        for section in sections
        if (verdict := section.finding.judgement.verdict)
        and (direction := section.at_recommended("direction"))
        and (structure := section.at_recommended("structure_ssim"))
    ]
    if not points:
        return ()
    leaks = [(one.value, verdict) for one, verdict in _list_values(sections, "content_leakage")]
    directions = [(point.direction, point.verdict) for point in points]
    evaluate = run.evaluate
    spreads = [Spread("direction", directions, (evaluate.reject_direction, evaluate.accept_direction))]
    if leaks:
        spreads.append(Spread("content_leakage", leaks, (evaluate.accept_leakage, evaluate.reject_leakage)))
    scatter = draw_scatter(points, evaluate.accept_direction, evaluate.structure_floor)
    return (
        ("style against layout; a dot leads to its pair", scatter),
        *((METRICS[one.metric].meaning, draw_spread(one)) for one in spreads),
    )


def _list_values(sections: Iterable[PairSection], metric: str) -> list[tuple[Summary, str]]:
    return [
        (found, verdict)
        for section in sections
        if (found := section.at_recommended(metric)) and (verdict := section.finding.judgement.verdict)
    ]


def show_changes(comparison: Comparison | None, thumbnails: Thumbnails, earlier: Mapping[str, Thumbnail]) -> tuple[ShownChange, ...]:
    """The changes that are shown with pictures; `earlier` holds thumbnails of the previous run by image id."""

    def show(change: Change) -> ShownChange:
        if change.pictures is None:
            return ShownChange(change, None, None)
        old, new = change.pictures
        return ShownChange(change, show_drawn(old, earlier), show_drawn(new, thumbnails.drawn))

    return tuple(map(show, comparison.changes[:LISTED_CHANGES])) if comparison else ()


def list_files_beside(sections: Iterable[PairSection], changes: Iterable[ShownChange]) -> dict[str, bytes]:
    """The picture files that the first page refers to, by name."""
    tiles = [tile for one in sections for tile in (one.content, one.style, one.unstyled, one.sample)]
    tiles += [tile for change in changes for tile in (change.before, change.after)]
    pictures = [tile.thumbnail for tile in tiles if tile and tile.thumbnail]
    return {f"thumbnails/{picture.file_name}": picture.data for picture in pictures}
