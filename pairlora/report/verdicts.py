"""The verdict of a pair, by rules that compare with the unstyled pictures and whose limits stand in the configuration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pairlora.config import EvaluateConfig
from pairlora.report.collection import PairContents
from pairlora.report.summaries import PairSummary, summarize_pair

Verdict = Literal["accept", "review", "reject"]
SEVERITY: dict[str, int] = {"accept": 0, "review": 1, "reject": 2}


@dataclass(frozen=True)
class Judgement:
    """A verdict and its reasons in words; null where a pair has no scores to judge."""

    verdict: Verdict | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What the scores of a pair come to: means, recommendations and the verdict."""

    summary: PairSummary
    judgement: Judgement


def find_out(pair: PairContents, evaluate: EvaluateConfig) -> Finding:
    """Summarise and judge a pair. One that failed keeps the means of its pictures and gets no verdict."""
    summary = summarize_pair(pair, evaluate)
    judged = pair.outcome.status in ("done", "reused")
    if not judged:
        return Finding(summary, Judgement())
    judgement = judge_pair(summary, evaluate)
    lowered = pair.adapter.lowered_rate if pair.adapter else None
    return Finding(summary, judgement if lowered is None else doubt_training(judgement, lowered))


def doubt_training(judgement: Judgement, rate: float) -> Judgement:
    """The judgement of an adapter that was not trained as asked: at best to be looked at."""
    reason = f"the training diverged at its own learning rate; this adapter was trained at {rate:g}"
    verdict = "review" if judgement.verdict == "accept" else judgement.verdict
    return Judgement(verdict, (reason, *(judgement.reasons if judgement.verdict != "accept" else ())))


@dataclass(frozen=True)
class Rule:
    """One measured value between its limits. `least`: values below the limits are the bad ones, else those above."""

    name: str
    value: float
    accept: float
    reject: float
    least: bool
    meaning: str

    def find_fault(self) -> tuple[Verdict, str] | None:
        """The verdict and the reason where a limit is broken."""
        side = -1 if self.least else 1
        over = [side * (self.value - limit) > 0 for limit in (self.accept, self.reject)]
        if not over[0]:
            return None
        limit = self.reject if over[1] else self.accept
        reason = f"{self.meaning}: {self.name} {self.value:.2f} is {'below' if self.least else 'above'} {limit:g}"
        return "reject" if over[1] else "review", reason


def judge_pair(summary: PairSummary, evaluate: EvaluateConfig) -> Judgement:
    """The verdict at the recommended strength: the worst that any rule comes to, with the reasons of all rules that are broken."""
    if not summary.by_strength("direction"):
        return Judgement()
    if summary.recommended_strength is None:
        return Judgement("reject", ("no strength that was drawn keeps the layout and moves towards the style",))
    broken = [fault for rule in list_rules(summary, evaluate) if (fault := rule.find_fault())]
    doubts: list[tuple[Verdict, str]] = [("review", doubt) for doubt in list_doubts(summary, evaluate)]
    faults = [*broken, *doubts]
    if not faults:
        return Judgement("accept", (describe_success(summary),))
    faults.sort(key=lambda fault: -SEVERITY[fault[0]])
    return Judgement(faults[0][0], tuple(reason for _, reason in faults))


def list_rules(summary: PairSummary, evaluate: EvaluateConfig) -> Iterator[Rule]:
    """The rules whose values are known at the recommended strength."""
    strength = summary.recommended_strength
    limits = {"text_loss": measure_text_loss(summary), "spill": summary.spill}
    for name in ("direction", "structure_similarity", "content_leakage", "subject_leakage", "diversity"):
        found = summary.find(name, strength)
        limits[name] = found.value if found else None
    for name, family, least, meaning in (
        ("direction", "direction", True, "little of the style arrives"),
        ("structure_similarity", "similarity", False, "hardly anything changes"),
        ("content_leakage", "leakage", False, "the training picture creeps in"),
        ("subject_leakage", "leakage", False, "the training subject creeps in"),
        ("diversity", "diversity", True, "seeds look alike"),
        ("text_loss", "text_loss", False, "prompts are followed less than without the style"),
        ("spill", "spill", False, "the adapter was trained too long: it changes pictures of other subjects beyond their style"),
    ):
        if (value := limits[name]) is not None:
            yield Rule(name, value, getattr(evaluate, f"accept_{family}"), getattr(evaluate, f"reject_{family}"), least, meaning)


def measure_text_loss(summary: PairSummary) -> float | None:
    """Share of the unstyled pictures' mean text_alignment that is lost at the recommended strength; null where that is not above 0."""
    styled, unstyled = (summary.find("text_alignment", strength) for strength in (summary.recommended_strength, 0.0))
    if styled is None or unstyled is None or unstyled.value <= 0:
        return None
    return 1 - styled.value / unstyled.value


def list_doubts(summary: PairSummary, evaluate: EvaluateConfig) -> Iterator[str]:
    """Why a verdict without broken limits would still be a guess."""
    chosen = summary.strength
    direction = summary.find("direction", chosen.value)
    if direction is None or direction.low is None:
        yield "one picture a strength says little: draw more seeds or prompts"
    elif direction.low <= 0:
        yield f"the style may not arrive at all: the interval of direction, {direction.low:.2f} … {direction.high:.2f}, holds 0"
    if chosen.share is not None and chosen.share < evaluate.accept_certainty:
        yield f"the strength is unsure: {chosen.share:.0%} of resamples recommend it, most of them λ {chosen.low:g} … {chosen.high:g}"


def describe_success(summary: PairSummary) -> str:
    """What an accepted pair has reached."""
    direction, structure = (summary.find(metric, summary.recommended_strength) for metric in ("direction", "structure_ssim"))
    shown = [
        f"{words} ({one.metric} {one.value:.2f})"
        for words, one in (("the style arrives", direction), ("the layout stays", structure))
        if one
    ]
    return f"{', '.join(shown)}, nothing leaks"
