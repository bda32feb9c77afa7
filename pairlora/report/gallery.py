"""The report's first page in numbers: what cards are counted and sorted by, the plots over all pairs, what changed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pairlora.config import RunConfig
from pairlora.measures import GAINS, METRICS, Metric
from pairlora.report.cards import SORTED_BY, Card
from pairlora.report.comparison import LISTED_CHANGES, Change, Comparison
from pairlora.report.distributions import PairPoint, Spread, draw_scatter, draw_spread
from pairlora.report.sections import PairSection, Tile, show_drawn
from pairlora.report.thumbnails import Thumbnail, read_drawn
from pairlora.store.run_store import RunStore

STATUS_ORDER = ("done", "reused", "failed", "invalid", "pending", "cancelled")


@dataclass(frozen=True)
class ShownChange:
    """A changed pair with its picture then and now."""

    change: Change
    before: Tile | None
    after: Tile | None


def choose_gain(cards: Iterable[Card]) -> Metric | None:
    """The gain that the gallery shows: the one by independent features where any pair has it, else the other, else none."""
    found = {gain for card in cards for gain in card.gains}
    return next((gain for gain in GAINS.values() if gain.name in found), None)


def list_metrics(gain: Metric | None) -> tuple[Metric, ...]:
    """The metrics that cards hold."""
    return (*(METRICS[name] for name in SORTED_BY), *((gain,) if gain else ()))


def count_statuses(cards: Iterable[Card]) -> dict[str, int]:
    """How many pairs came to each status; statuses that none came to are left out."""
    found = Counter(card.status for card in cards)
    return {status: found[status] for status in STATUS_ORDER if found[status]}


def count_verdicts(cards: Iterable[Card]) -> dict[str, int]:
    """How many pairs came to each verdict, the best first."""
    found = Counter(card.verdict for card in cards)
    return {verdict: found[verdict] for verdict in ("accept", "review", "reject") if found[verdict]}


def list_groups(cards: Iterable[Card]) -> list[str]:
    """The groups of the manifest, sorted."""
    return sorted({card.pair.group for card in cards if card.pair and card.pair.group})


def draw_overview(cards: Sequence[Card], run: RunConfig) -> tuple[tuple[str, Markup], ...]:
    """Style against layout with a dot a pair, and how direction and leakage are spread, by verdict; (words, chart), none without scores."""
    points = [
        PairPoint(card.name, f"pairs/{card.pair_id}.html", card.verdict, direction.value, structure.value)
        for card in cards
        if card.verdict and (direction := card.at_recommended("direction")) and (structure := card.at_recommended("structure_ssim"))
    ]
    if not points:
        return ()
    leaks = [(leak.value, card.verdict) for card in cards if card.verdict and (leak := card.at_recommended("content_leakage"))]
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


def show_changes(store: RunStore, comparison: Comparison | None, run: RunConfig) -> tuple[ShownChange, ...]:
    """The changes that are shown with pictures, which are read anew."""
    changes = comparison.changes[:LISTED_CHANGES] if comparison else ()
    drawn = read_drawn(store, [image.record for change in changes for image in change.pictures or ()], run.pictures)

    def show(change: Change) -> ShownChange:
        if change.pictures is None:
            return ShownChange(change, None, None)
        return ShownChange(change, *(show_drawn(image, drawn) for image in change.pictures))

    return tuple(map(show, changes))


def list_shown(sections: Iterable[PairSection]) -> list[Tile | None]:
    """The tiles of pairs that stand on the first page."""
    return [tile for one in sections for tile in (one.content, one.style, one.unstyled, one.sample)]


def list_files_beside(tiles: Iterable[Tile | None]) -> dict[str, bytes]:
    """The picture files that the first page refers to, by name."""
    pictures = [tile.thumbnail for tile in tiles if tile and isinstance(tile.thumbnail, Thumbnail)]
    return {f"thumbnails/{picture.file_name}": picture.data for picture in pictures}
