"""The laws of verdicts and recommendations: relative to the unstyled pictures, by the configuration's limits, with reasons in words."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pairlora.config import EvaluateConfig
from pairlora.measures import Recommendation, recommend_strength, weigh_recommendation
from pairlora.report.summaries import PairSummary, Summary
from pairlora.report.verdicts import judge_pair

GOOD = {"direction": 0.5, "structure_ssim": 0.7, "content_leakage": 0.0, "subject_leakage": 0.0, "diversity": 0.95, "text_alignment": 0.29}
UNSTYLED = {"text_alignment": 0.3, "structure_ssim": 1.0}


def summarise(values: dict[str, float], *, low: float | None = 0.3, share: float | None = 0.9, strength: float | None = 2.0) -> PairSummary:
    """The means of a pair at strength 2 and of its unstyled pictures."""

    def mean(metric: str, value: float, at: float) -> Summary:
        known = low is not None
        return Summary("fox", "", at, None, metric, value, low if metric == "direction" else value, value if known else None, 4)

    styled = [mean(metric, value, 2.0) for metric, value in values.items()]
    unstyled = [mean(metric, value, 0.0) for metric, value in UNSTYLED.items()]
    return PairSummary((*styled, *unstyled), Recommendation(strength, share, 1.0, 3.0), Recommendation())


def test_a_style_that_arrives_and_harms_nothing_is_accepted_and_says_so():
    judgement = judge_pair(summarise(GOOD), EvaluateConfig())
    assert judgement.verdict == "accept"
    assert judgement.reasons == ("the style arrives (direction 0.50), the layout stays (structure_ssim 0.70), nothing leaks",)


@pytest.mark.parametrize(
    ("metric", "review", "reject", "words"),
    [
        ("direction", 0.1, 0.01, "little of the style arrives: direction"),
        ("structure_similarity", 0.98, 1.01, "hardly anything changes: structure_similarity"),
        ("content_leakage", 0.2, 0.4, "the training picture creeps in: content_leakage"),
        ("subject_leakage", 0.2, 0.4, "the training subject creeps in: subject_leakage"),
        ("diversity", 0.6, 0.2, "seeds look alike: diversity"),
        ("text_alignment", 0.2, 0.1, "prompts are followed less than without the style: text_loss"),
    ],
)
def test_a_broken_limit_is_a_reason_in_words(metric: str, review: float, reject: float, words: str):
    for value, verdict in ((review, "review"), (reject, "reject")):
        judgement = judge_pair(summarise(GOOD | {metric: value}, low=0.005), EvaluateConfig())
        assert judgement.verdict == verdict
        assert len(judgement.reasons) == 1
        assert judgement.reasons[0].startswith(words)


def test_an_adapter_that_changes_other_pictures_was_trained_too_long():
    for spill, verdict in ((0.3, "review"), (0.6, "reject"), (0.1, "accept")):
        judgement = judge_pair(replace(summarise(GOOD), spill=spill), EvaluateConfig(accept_spill=0.2, reject_spill=0.5))
        assert judgement.verdict == verdict
        assert verdict == "accept" or judgement.reasons[0].startswith("the adapter was trained too long")


def test_limits_are_those_of_the_configuration_and_name_themselves():
    judgement = judge_pair(summarise(GOOD), EvaluateConfig(accept_direction=0.6))
    assert judgement.verdict == "review"
    assert judgement.reasons == ("little of the style arrives: direction 0.50 is below 0.6",)


def test_the_worst_limit_decides_and_stands_first():
    judgement = judge_pair(summarise(GOOD | {"direction": 0.1, "diversity": 0.1}), EvaluateConfig())
    assert judgement.verdict == "reject"
    assert [reason.partition(":")[0] for reason in judgement.reasons] == ["seeds look alike", "little of the style arrives"]


def test_leaking_less_than_the_unstyled_pictures_is_no_fault():
    assert judge_pair(summarise(GOOD | {"content_leakage": -0.9}), EvaluateConfig()).verdict == "accept"


def test_text_loss_is_a_share_of_what_the_unstyled_pictures_have():
    halved = summarise(GOOD | {"text_alignment": 0.15})
    assert judge_pair(halved, EvaluateConfig(accept_text_loss=0.49, reject_text_loss=0.9)).verdict == "review"
    assert judge_pair(halved, EvaluateConfig(accept_text_loss=0.51, reject_text_loss=0.9)).verdict == "accept"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"low": None}, "one picture a strength says little"),
        ({"low": -0.1}, "holds 0"),
        ({"share": 0.3}, "30% of resamples recommend it"),
    ],
)
def test_what_is_unsure_is_to_be_looked_at(facts: dict[str, Any], words: str):
    judgement = judge_pair(summarise(GOOD, **facts), EvaluateConfig())
    assert judgement.verdict == "review"
    assert words in judgement.reasons[0]


def test_without_a_fit_strength_a_pair_is_rejected_and_without_scores_not_judged():
    assert judge_pair(summarise(GOOD, strength=None), EvaluateConfig()).verdict == "reject"
    assert judge_pair(PairSummary((), Recommendation(), Recommendation()), EvaluateConfig()).verdict is None


def test_a_looser_limit_to_accept_than_to_reject_is_refused():
    with pytest.raises(ValidationError, match=r"accept_leakage = 0\.3 is looser than reject_leakage = 0\.25"):
        EvaluateConfig(accept_leakage=0.3)


# How sure a recommendation is


Values = dict[float, dict[tuple[str, int], float]]


def weigh(directions: Values, structures: Values, structure_floor: float = 0.3) -> Recommendation:
    return weigh_recommendation(directions, structures, least_progress=0.48, structure_floor=structure_floor, samples=300, seed=0)


def scatter(means: dict[float, float], noise: float, cells: int = 8) -> Values:
    rng = np.random.default_rng(1)
    return {strength: {("a fox", seed): mean + noise * float(rng.normal()) for seed in range(cells)} for strength, mean in means.items()}


def test_a_recommendation_without_noise_is_certain():
    chosen = weigh(scatter({1.0: 0.2, 2.0: 0.5, 3.0: 0.52}, 0), scatter({1.0: 0.9, 2.0: 0.8, 3.0: 0.7}, 0))
    assert chosen == Recommendation(2.0, 1.0, 2.0, 2.0)


def test_noise_makes_a_recommendation_unsure_and_its_value_is_that_of_the_means():
    directions, structures = scatter({1.0: 0.45, 2.0: 0.5, 3.0: 0.55}, 0.1), scatter({1.0: 0.9, 2.0: 0.8, 3.0: 0.7}, 0)
    chosen = weigh(directions, structures)
    means = [{strength: float(np.mean(list(found.values()))) for strength, found in values.items()} for values in (directions, structures)]
    assert chosen.value == recommend_strength(*means, least_progress=0.48, structure_floor=0.3)
    assert chosen.share is not None
    assert 0.2 < chosen.share < 0.95
    assert chosen.low is not None
    assert chosen.high is not None
    assert chosen.low < chosen.high


def test_resamples_keep_a_prompt_and_seed_together():
    """Where direction and structure of a cell are bought together, no resample may take the one without the other."""
    directions = {1.0: {("sharp", 0): 1.0, ("blurred", 0): 0.0}}
    structures = {1.0: {("sharp", 0): 0.0, ("blurred", 0): 1.0}}
    chosen = weigh(directions, structures, structure_floor=0.5)
    # (sharp, sharp) loses the layout and (blurred, blurred) gains nothing: half of the resamples are mixed
    assert chosen.value == 1.0
    assert chosen.share == pytest.approx(0.5, abs=0.1)


def test_one_picture_or_none_says_nothing_of_certainty():
    assert weigh({1.0: {("a", 0): 0.5}}, {1.0: {("a", 0): 0.9}}) == Recommendation(1.0)
    assert weigh({}, {}) == Recommendation()
    lost = weigh({1.0: {("a", 0): 0.5, ("b", 0): 0.5}}, {1.0: {("a", 0): 0.1, ("b", 0): 0.1}})
    assert lost == Recommendation(None, 1.0)
