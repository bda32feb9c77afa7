"""The pairs of a run that need a look most, worst first."""

from collections.abc import Sequence

from pairlora.records import Record
from pairlora.report.sections import PairSection
from pairlora.report.verdicts import SEVERITY

WORST = 10
"""Pairs that are named beside the report itself."""


class RankedPair(Record):
    """A judged pair in one line: verdict and reasons, and its means at the recommended strength."""

    pair_id: str
    verdict: str
    strength: float | None
    direction: float | None
    structure: float | None
    reasons: tuple[str, ...]


def rank_worst(sections: Sequence[PairSection]) -> list[PairSection]:
    """The worst of the pairs that have a verdict: by verdict, then the least style first."""
    judged = [section for section in sections if section.finding.judgement.verdict]

    def grade(section: PairSection) -> tuple[int, float]:
        direction = section.at_recommended("direction")
        return (-SEVERITY[section.finding.judgement.verdict or ""], direction.value if direction else -1.0)

    return sorted(judged, key=grade)[:WORST]


def describe_ranked(section: PairSection) -> RankedPair:
    """The line of a pair."""
    direction, structure = section.at_recommended("direction"), section.at_recommended("structure_ssim")
    return RankedPair(
        pair_id=section.name,
        verdict=section.finding.judgement.verdict or "",
        strength=section.summary.recommended_strength,
        direction=direction.value if direction else None,
        structure=structure.value if structure else None,
        reasons=section.finding.judgement.reasons,
    )
