"""The page of a run: one HTML file that needs no other, for people who look at pictures first."""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pairlora.config import RunConfig
from pairlora.measures import DIVERSITY, GAINS, METRICS, Metric
from pairlora.report.collection import RunContents
from pairlora.report.sections import PairSection
from pairlora.report.summaries import Summary
from pairlora.urls import name_url

STATUS_ORDER = ("done", "reused", "failed", "invalid", "pending", "cancelled")
NOTHING = "–"


def render_page(contents: RunContents, sections: Sequence[PairSection], run: RunConfig, credits: Sequence[str] = ()) -> str:
    """The page as HTML. Equal contents give equal text: no time but the run's own stands in it."""
    outcomes = [pair.outcome for pair in contents.pairs]
    licences = {pair.job.pair.licence for pair in contents.pairs if pair.job and pair.job.pair.licence}
    return (
        make_environment()
        .get_template("index.html.j2")
        .render(
            run=contents.run,
            base=run.base.name,
            sample=run.sample,
            evaluate=run.evaluate,
            manifest=name_url(contents.run.manifest).rsplit("/", 1)[-1],
            counts=count_statuses(contents),
            sections=sections,
            failures=[outcome for outcome in outcomes if outcome.status in ("failed", "invalid")],
            device_seconds=sum(outcome.train_seconds + outcome.draw_seconds + outcome.score_seconds for outcome in outcomes),
            images_drawn=sum(outcome.images_drawn for outcome in outcomes),
            images_reused=sum(outcome.images_reused for outcome in outcomes),
            gain=choose_gain(sections),
            metrics=[*METRICS.values(), *GAINS.values(), DIVERSITY],
            encoders=list_encoders(contents),
            licences=sorted(licences),
            credits=credits,
        )
    )


def make_environment() -> Environment:
    """Templates beside this module; what comes from a manifest is escaped everywhere."""
    environment = Environment(
        loader=PackageLoader("pairlora.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(mean=format_mean, interval=format_interval, duration=format_duration, better=format_better)
    return environment


def count_statuses(contents: RunContents) -> dict[str, int]:
    """How many pairs came to each status; statuses that none came to are left out."""
    found = [pair.outcome.status for pair in contents.pairs]
    return {status: found.count(status) for status in STATUS_ORDER if status in found}


def choose_gain(sections: Sequence[PairSection]) -> Metric | None:
    """The gain that the overview shows: the one by independent features where any pair has it, else the other, else none."""
    found = {summary.metric for section in sections for summary in section.summary.summaries}
    return next((gain for gain in GAINS.values() if gain.name in found), None)


def list_encoders(contents: RunContents) -> dict[str, str]:
    """The encoders behind each metric of the run."""
    found: dict[str, dict[str, None]] = {}
    for scores in (image.scores for pair in contents.pairs for image in pair.images if image.scores is not None):
        for metric, encoder in scores.encoders.items():
            found.setdefault(metric, {})[encoder] = None
    return {metric: ", ".join(filter(None, encoders)) for metric, encoders in found.items()}


# How values are written


def format_mean(summary: Summary | None, sign: str = "-") -> str:
    """Two decimals; a `sign` of '+' shows it for positive values too."""
    return NOTHING if summary is None else f"{summary.value:{sign}.2f}".replace("-", "−")


def format_interval(summary: Summary | None, sign: str = "-") -> str:
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
