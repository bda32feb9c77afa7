"""Means over the pictures of a pair, with intervals, and the strength that follows from them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pairlora.config import EvaluateConfig
from pairlora.measures import DIVERSITY, GAINS, bootstrap_mean, recommend_strength, relate_gain
from pairlora.report.collection import PairContents, ShownImage

ALL_PROMPTS = ""


@dataclass(frozen=True)
class Summary:
    """The mean of a metric over `n` pictures, one for each (prompt, seed), with its 95 % bootstrap interval; null for one picture.

    `diversity` is known of a prompt alone, so its `n` counts prompts.
    """

    pair_id: str
    prompt: str
    strength: float
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class PairSummary:
    """All means of a pair, and the strength that they recommend; null where no strength is fit."""

    summaries: tuple[Summary, ...]
    recommended_strength: float | None

    def find(self, metric: str, strength: float | None) -> Summary | None:
        """The mean of a metric over all prompts at a strength."""
        return next((one for one in self.summaries if (one.prompt, one.metric, one.strength) == (ALL_PROMPTS, metric, strength)), None)

    def by_strength(self, metric: str) -> dict[float, float]:
        """The means of a metric over all prompts, by strength."""
        return {one.strength: one.value for one in self.summaries if (one.prompt, one.metric) == (ALL_PROMPTS, metric)}


def summarize_pair(pair: PairContents, evaluate: EvaluateConfig) -> PairSummary:
    """Means per strength and metric, for all prompts together and for each one; the strength by the configuration's rule."""
    groups: dict[tuple[str, float, str], list[float]] = defaultdict(list)
    for image, metric, value in _iterate_values(pair.images):
        for prompt in (ALL_PROMPTS, image.record.prompt):
            groups[prompt, image.record.strength, metric].append(value)
    for prompt, strength, ratio in _compare_spreads(groups):
        for name in (ALL_PROMPTS, prompt):
            groups[name, strength, DIVERSITY.name].append(ratio)
    summaries = tuple(_summarize(pair.pair_id, *key, values, evaluate) for key, values in groups.items())
    means = PairSummary(summaries, None)
    recommended = recommend_strength(
        means.by_strength("direction"),
        means.by_strength("structure_ssim"),
        direction_share=evaluate.direction_share,
        structure_floor=evaluate.structure_floor,
    )
    return PairSummary(summaries, recommended)


def _iterate_values(images: Iterable[ShownImage]) -> Iterator[tuple[ShownImage, str, float]]:
    """Each value that is known of a picture: its own scores, and its gains over the unstyled picture of its prompt and seed."""
    images = list(images)
    unstyled = {(image.record.prompt, image.record.seed): image.values for image in images if image.record.strength == 0}
    for image in images:
        beside = unstyled.get((image.record.prompt, image.record.seed), {}) if image.record.strength else {}
        known = {**image.values, **compute_gains(image.values, beside)}
        yield from ((image, metric, value) for metric, value in known.items() if value is not None)


def _compare_spreads(groups: Mapping[tuple[str, float, str], Sequence[float]]) -> list[tuple[str, float, float]]:
    """Mean spread over that of the unstyled pictures, by prompt and strength."""
    means = {(prompt, strength): fmean(values) for (prompt, strength, metric), values in groups.items() if metric == "spread" and prompt}
    return [
        (prompt, strength, value / unstyled)
        for (prompt, strength), value in means.items()
        if strength and (unstyled := means.get((prompt, 0.0), 0.0)) > 1e-9
    ]


def compute_gains(styled: Mapping[str, float | None], unstyled: Mapping[str, float | None]) -> dict[str, float | None]:
    """The gains of a styled picture over the unstyled one of its prompt and seed, for the metrics that both have."""
    gains: dict[str, float | None] = {}
    for source, gain in GAINS.items():
        after, before = styled.get(source), unstyled.get(source)
        if after is not None and before is not None:
            gains[gain.name] = relate_gain(after, before)
    return gains


def _summarize(pair_id: str, prompt: str, strength: float, metric: str, values: Sequence[float], evaluate: EvaluateConfig) -> Summary:
    value, low, high = bootstrap_mean(list(values), evaluate.bootstrap_samples, evaluate.bootstrap_seed)
    known = len(values) > 1  # one picture says nothing of how far others would lie from it
    return Summary(pair_id, prompt, strength, metric, value, low if known else None, high if known else None, len(values))
