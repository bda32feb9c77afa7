"""What the first page keeps of each pair: its card. Everything else of a pair is let go once its own page is written."""

from collections.abc import Mapping
from dataclasses import dataclass

from pairlora.measures import GAINS
from pairlora.records import Review
from pairlora.report.sections import PairSection, Tile
from pairlora.report.summaries import Summary
from pairlora.report.thumbnails import Thumbnail

SORTED_BY = ("direction", "structure_ssim", "content_leakage", "style_similarity", "text_alignment")
"""Metrics that the gallery sorts by; a gain on the ground truth joins them where there is one."""
SHOWN_REASONS = 2


@dataclass(frozen=True, slots=True)
class CardPair:
    """What a card says of a row of the manifest that is valid; `words` are what a search looks through."""

    group: str
    words: str
    prompts: int


@dataclass(frozen=True, slots=True)
class Card:
    """A pair on the first page. `means` hold the metrics that cards show, at the recommended strength; `gains` name those it has at any.

    `log` leads from the run's folder to what was logged during the last try; empty where there was none.
    """

    row: int
    pair_id: str
    name: str
    pair: CardPair | None
    status: str
    error_class: str
    error_message: str
    verdict: str | None
    reasons: tuple[str, ...]
    decision: Review | None
    strength: float | None
    strength_share: float | None
    means: Mapping[str, Summary]
    gains: tuple[str, ...]
    cut_prompts: int
    tries: int
    log: str
    content: Tile | None
    style: Tile | None
    unstyled: Tile | None
    sample: Tile | None
    is_shown: bool
    trained: bool
    images_drawn: int
    images_reused: int
    seconds: float

    def at_recommended(self, metric: str) -> Summary | None:
        """The mean of a metric at the recommended strength, if it is one that cards show."""
        return self.means.get(metric)


def make_card(section: PairSection) -> Card:
    """The card of a pair."""
    outcome, judgement, summary = section.pair.outcome, section.finding.judgement, section.summary
    means = ((metric, section.at_recommended(metric)) for metric in (*SORTED_BY, *(gain.name for gain in GAINS.values())))
    known = {one.metric for one in summary.summaries}
    return Card(
        row=outcome.row,
        pair_id=outcome.pair_id,
        name=section.name,
        pair=_describe_pair(section),
        status=outcome.status,
        error_class=outcome.error_class,
        error_message=outcome.error_message,
        verdict=judgement.verdict,
        reasons=judgement.reasons[:SHOWN_REASONS],
        decision=section.pair.decision,
        strength=summary.strength.value,
        strength_share=summary.strength.share,
        means={metric: mean for metric, mean in means if mean is not None},
        gains=tuple(gain.name for gain in GAINS.values() if gain.name in known),
        cut_prompts=len(section.pair.cut_prompts),
        tries=len(section.tries),
        log=section.tries[-1].log if section.tries else "",
        content=_without_bytes(section.content),
        style=_without_bytes(section.style),
        unstyled=_without_bytes(section.unstyled),
        sample=_without_bytes(section.sample),
        is_shown=bool(section.pair.images),
        trained=outcome.trained,
        images_drawn=outcome.images_drawn,
        images_reused=outcome.images_reused,
        seconds=outcome.train_seconds + outcome.draw_seconds + outcome.score_seconds,
    )


def _describe_pair(section: PairSection) -> CardPair | None:
    if section.pair.job is None:
        return None
    pair = section.pair.job.pair
    words = " ".join((pair.content_prompt, pair.style_template, *pair.prompts))
    return CardPair(pair.group, words, len(pair.prompts))


def _without_bytes(tile: Tile | None) -> Tile | None:
    """A tile whose picture lies in a file beside the page."""
    if tile is None or not isinstance(tile.thumbnail, Thumbnail):
        return tile
    return Tile(tile.thumbnail.file, tile.words)
