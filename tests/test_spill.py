"""Laws of the spill: none where B is zero, four times as much for twice a small B, and nothing said without other pictures."""

from pathlib import Path

import pytest
from test_pipeline import Studio
from tiny_base import SIZE, TRAIN, make_base, make_picture

from pairlora.adapters import Role
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.evaluation.spill import Example, measure_spill
from pairlora.execution.pipeline import style_attached
from pairlora.sampling.plain_lora import scale_style
from pairlora.training.packs import TrainingPair, train_pack

STYLE = Example(make_picture(1), "a fox in ink")
OTHERS = [Example(make_picture(2), "a cat in ink"), Example(make_picture(3), "a dog in ink")]


@pytest.fixture(scope="module")
def base():
    return make_base()


@pytest.fixture(scope="module")
def adapter(base):
    """A style adapter that changes pictures."""
    (trained,) = train_pack(base, [TrainingPair("fox", make_picture(0), STYLE.picture, "a fox", STYLE.style_prompt)], TRAIN)
    return trained.matrices[Role.STYLE]


def measure(base, adapter, weight: float = 1.0, others=OTHERS) -> float | None:
    with style_attached(base, scale_style(adapter, weight)) as adapters:
        return measure_spill(base, adapters, STYLE, others, SIZE)


def test_an_adapter_that_does_nothing_spills_nothing(base, adapter):
    assert measure(base, adapter, 0.0) == 0.0


def test_twice_a_small_update_spills_four_times_as_much(base, adapter):
    small, double = measure(base, adapter, 1e-4), measure(base, adapter, 2e-4)
    assert small
    assert double
    assert double / small == pytest.approx(4, rel=1e-2)


def test_it_is_the_mean_over_pictures_whatever_their_order(base, adapter):
    each = [measure(base, adapter, others=[one]) for one in OTHERS]
    assert None not in each
    assert measure(base, adapter, others=OTHERS[::-1]) == pytest.approx(sum(one or 0 for one in each) / 2)


def test_nothing_is_said_without_a_picture_of_another_subject(base, adapter):
    assert measure(base, adapter, others=[]) is None


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path, Scorer(ClipEncoder("embedded"), None))


def test_the_spill_of_an_adapter_is_measured_once_and_known_wherever_the_pair_is_reused(studio):
    first = studio.run({})["pair-0"]
    again = studio.run({})["pair-0"]
    (found,) = studio.find_finished().outcomes.values()
    assert first.spill
    assert first.spill > 0
    assert again.spill == pytest.approx(first.spill)
    assert found.spill == again.spill


def test_the_spill_is_unknown_where_only_the_training_subject_is_drawn(studio):
    outcome = studio.run({"test_prompts": ["a fox"]})["pair-0"]
    assert outcome.status == "done"
    assert outcome.spill is None
