"""The pages of a run as HTML: the first page, and one a pair. They need no network, and trust no manifest."""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib import resources
from itertools import chain
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pairlora.config import RunConfig
from pairlora.measures import DIVERSITY, GAINS, METRICS, SPILL, Metric
from pairlora.report.collection import RunContents
from pairlora.report.comparison import Comparison, Difference
from pairlora.report.gallery import ShownChange, choose_gain, count_verdicts, draw_overview, list_groups, list_metrics, sum_seconds
from pairlora.report.sections import PairSection
from pairlora.report.summaries import Summary
from pairlora.review.decisions import describe_review
from pairlora.store.urls import name_url

STATUS_ORDER = ("done", "reused", "failed", "invalid", "pending", "cancelled")
LISTED_FAILURES = 12
"""Failures that are seen at once; the others unfold."""
NOTHING = "–"


@dataclass(frozen=True)
class Pages:
    """The pages of a run: what they show, and how they are written. Equal contents give equal text."""

    contents: RunContents
    sections: Sequence[PairSection]
    run: RunConfig
    comparison: Comparison | None = None
    changes: Sequence[ShownChange] = ()
    credits: Sequence[str] = ()

    def render_index(self) -> str:
        """The first page: counts, failures, what changed, plots, and a card a pair."""
        outcomes = [pair.outcome for pair in self.contents.pairs]
        gain = choose_gain(self.sections)
        return self._render(
            "index.html.j2",
            ("page.js", "gallery.js", "review.js"),
            base=self.run.base.name,
            sample=self.run.sample,
            evaluate=self.run.evaluate,
            counts=count_statuses(self.contents),
            verdicts=count_verdicts(self.sections),
            decided=sum(section.pair.decision is not None for section in self.sections),
            listed_failures=LISTED_FAILURES,
            groups=list_groups(self.sections),
            sections=self.sections,
            failures=[section for section in self.sections if section.pair.outcome.status in ("failed", "invalid")],
            comparison=self.comparison,
            changes=self.changes,
            plots=draw_overview(self.sections, self.run),
            device_seconds=sum_seconds(outcomes),
            images_drawn=sum(outcome.images_drawn for outcome in outcomes),
            images_reused=sum(outcome.images_reused for outcome in outcomes),
            gain=gain,
            card_metrics=list_metrics(gain),
            metrics=[*METRICS.values(), *GAINS.values(), DIVERSITY, SPILL],
            encoders=list_encoders(self.contents),
        )

    def render_pairs(self) -> Iterator[tuple[str, str]]:
        """The page of each pair that has one, with its path beside the first page."""
        shown = [section for section in self.sections if section.has_page]
        names = [section.name for section in shown]
        scripts = ("page.js", "viewer.js", "review.js")
        for section, previous, following in zip(shown, chain([None], names), chain(names[1:], [None]), strict=False):
            page = self._render("pair.html.j2", scripts, section=section, previous=previous, following=following)
            yield f"pairs/{section.name}.html", page

    @cached_property
    def _licences(self) -> list[str]:
        return sorted({licence for pair in self.contents.pairs if pair.job and (licence := pair.job.pair.licence)})

    def _render(self, template: str, scripts: Sequence[str], **values: Any) -> str:
        return (
            make_environment()
            .get_template(template)
            .render(
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


def count_statuses(contents: RunContents) -> dict[str, int]:
    """How many pairs came to each status; statuses that none came to are left out."""
    found = [pair.outcome.status for pair in contents.pairs]
    return {status: found.count(status) for status in STATUS_ORDER if status in found}


def list_encoders(contents: RunContents) -> dict[str, str]:
    """The encoders behind each metric of the run."""
    found: dict[str, dict[str, None]] = {}
    for scores in (image.scores for pair in contents.pairs for image in pair.images if image.scores is not None):
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
