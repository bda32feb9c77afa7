"""The pages of a run as HTML: the first page, and one a pair. They need no network, and trust no manifest."""

import io
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.environment import TemplateStream
from markupsafe import Markup

from pairlora.config import RunConfig
from pairlora.measures import DIVERSITY, GAINS, METRICS, SPILL, Metric
from pairlora.report.cards import Card
from pairlora.report.collection import PairContents, RunContents
from pairlora.report.comparison import Comparison, Difference
from pairlora.report.gallery import ShownChange, choose_gain, count_statuses, count_verdicts, draw_overview, list_groups, list_metrics
from pairlora.report.sections import PairSection
from pairlora.report.summaries import Summary
from pairlora.review.decisions import describe_review
from pairlora.store.urls import name_url

LISTED_FAILURES = 12
"""Failures that are seen at once; the others unfold."""
PIECES = 1000
"""Pieces of the first page, each a few words, that are put together at a time."""
NOTHING = "–"


@dataclass(frozen=True)
class FirstPage:
    """What the first page shows: a card a pair, the encoders behind each metric, and what changed since the previous run."""

    cards: Sequence[Card]
    encoders: Mapping[str, str]
    comparison: Comparison | None = None
    changes: Sequence[ShownChange] = ()


@dataclass(frozen=True)
class Pages:
    """The pages of a run and how they are written. Equal contents give equal bytes."""

    contents: RunContents
    run: RunConfig
    credits: Sequence[str] = ()

    def render_index(self, shown: FirstPage) -> bytes:
        """The first page: counts, failures, what changed, plots, and a card a pair. It is written piece by piece, since it may be large."""
        cards = shown.cards
        gain = choose_gain(cards)
        page = self._open_page(
            "index.html.j2",
            ("page.js", "gallery.js", "review.js"),
            base=self.run.base.name,
            sample=self.run.sample,
            evaluate=self.run.evaluate,
            counts=count_statuses(cards),
            verdicts=count_verdicts(cards),
            decided=sum(card.decision is not None for card in cards),
            listed_failures=LISTED_FAILURES,
            groups=list_groups(cards),
            cards=cards,
            failures=[card for card in cards if card.status in ("failed", "invalid")],
            comparison=shown.comparison,
            changes=shown.changes,
            plots=draw_overview(cards, self.run),
            device_seconds=sum(card.seconds for card in cards),
            images_drawn=sum(card.images_drawn for card in cards),
            images_reused=sum(card.images_reused for card in cards),
            gain=gain,
            card_metrics=list_metrics(gain),
            metrics=[*METRICS.values(), *GAINS.values(), DIVERSITY, SPILL],
            encoders=shown.encoders,
        )
        page.enable_buffering(PIECES)
        buffer = io.BytesIO()
        page.dump(buffer, encoding="utf-8")
        return buffer.getvalue()

    def render_pair(self, section: PairSection) -> bytes:
        """The page of a pair that has one."""
        previous, following = self._neighbours[section.pair.pair_id]
        scripts = ("page.js", "viewer.js", "review.js")
        return "".join(self._open_page("pair.html.j2", scripts, section=section, previous=previous, following=following)).encode()

    @cached_property
    def _neighbours(self) -> dict[str, tuple[str | None, str | None]]:
        """The pairs before and after each one that has a page."""
        names = [row.job.pair.pair_id for row in self.contents.rows if row.job]
        return dict(zip(names, zip([None, *names], [*names[1:], None], strict=False), strict=False))

    @cached_property
    def _licences(self) -> list[str]:
        return sorted({licence for row in self.contents.rows if row.job and (licence := row.job.pair.licence)})

    def _open_page(self, template: str, scripts: Sequence[str], **values: Any) -> TemplateStream:
        """A page that is rendered as it is read."""
        return (
            make_environment()
            .get_template(template)
            .stream(
                style=read_template("report.css"),
                script=Markup("").join(map(read_template, scripts)),
                run=self.contents.run,
                manifest=name_url(self.contents.run.manifest).rsplit("/", 1)[-1],
                licences=self._licences,
                credits=self.credits,
                **values,
            )
        )


@cache
def make_environment() -> Environment:
    """Templates beside this module; what comes from a manifest is escaped everywhere."""
    environment = Environment(
        loader=PackageLoader("pairlora.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(mean=format_mean, interval=format_interval, duration=format_duration, better=format_better)
    environment.filters.update(csp_hash=hash_source, decision=describe_review)
    return environment


@cache
def read_template(name: str) -> Markup:
    """A style sheet or script of the package, which is ours and stands on the page as it is."""
    return Markup(resources.files("pairlora.report").joinpath("templates", name).read_text())  # noqa: S704


def hash_source(source: str) -> str:
    """A style sheet or script as a content security policy names it, so that no other one runs."""
    return Markup("sha256-{}").format(b64encode(sha256(source.encode()).digest()).decode())


def list_encoders(pairs: Iterable[PairContents], known: Mapping[str, str]) -> dict[str, str]:
    """The encoders behind each metric of some pairs, after those that are `known` of other pairs of the run."""
    found = {metric: dict.fromkeys(encoders.split(", ")) for metric, encoders in known.items()}
    for scores in (image.scores for pair in pairs for image in pair.images if image.scores is not None):
        for metric, encoder in scores.encoders.items():
            found.setdefault(metric, {})[encoder] = None
    return {metric: ", ".join(filter(None, encoders)) for metric, encoders in found.items()}


# How values are written


def format_mean(summary: Summary | Difference | None, sign: str = "-") -> str:
    """Two decimals; a `sign` of '+' shows it for positive values too."""
    return NOTHING if summary is None else f"{summary.value:{sign}.2f}".replace("-", "−")


def format_interval(summary: Summary | Difference | None, sign: str = "-") -> str:
    """The 95 % interval; empty where there is none."""
    if summary is None or summary.low is None or summary.high is None:
        return ""
    return f"{summary.low:{sign}.2f} … {summary.high:{sign}.2f}".replace("-", "−")


def format_duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def format_better(metric: Metric) -> str:
    """Which values are the better ones."""
    marks: dict[Any, str] = {"higher": "↑ higher is better", "near 0": "→ near 0 is better", "near 1": "→ near 1 is better"}
    return marks[metric.better]
