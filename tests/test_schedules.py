"""Schedulers by name: the stock pipeline's pictures, no dependence on the batch, and which cannot be used (laws a, h)."""

import diffusers
import pytest
import torch
from styled_base import PROMPT, draw, draw_stock, random_styles, styled
from tiny_base import SAMPLE, make_base

from pairlora.errors import BaseModelError
from pairlora.sampling import ImageRequest, Sampler
from pairlora.schedules import Schedule

# diffusers turns its tensors into arrays in a way that numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

MEMORYLESS = ["DDIMScheduler", "EulerDiscreteScheduler"]
REMEMBERING = [
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
]
NOISY = ["EulerAncestralDiscreteScheduler", "LCMScheduler", "SASolverScheduler", "TCDScheduler"]
FOREIGN = ["DDIMInverseScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler", "KarrasVeScheduler", "RePaintScheduler"]


@pytest.fixture(scope="module")
def base():
    return make_base()


@pytest.fixture(scope="module")
def adapters(base):
    with random_styles(base) as adapters:
        yield adapters


def sample_with(scheduler, **changed):
    return SAMPLE.model_copy(update={"scheduler": scheduler, "steps": 5, **changed})


@pytest.mark.parametrize("name", MEMORYLESS + REMEMBERING)
def test_strength_zero_draws_what_the_stock_pipeline_draws(base, adapters, name):
    ours = draw(base, adapters, ImageRequest(PROMPT, 7), sample=sample_with(name))
    assert torch.allclose(ours, draw_stock(base, 7, getattr(diffusers, name), steps=5), atol=1e-9)


@pytest.mark.parametrize("name", MEMORYLESS + REMEMBERING)
def test_a_batch_equals_its_pictures_one_by_one(base, adapters, name):
    requests = [ImageRequest(PROMPT, 0), styled(1.0), styled(2.0, seed=4), styled(-1.0, slot=1)]
    together = draw(base, adapters, *requests, sample=sample_with(name))
    alone = torch.cat([draw(base, adapters, request, sample=sample_with(name)) for request in requests])
    assert torch.allclose(together, alone, atol=1e-9)


@pytest.mark.parametrize("name", MEMORYLESS + REMEMBERING)
def test_a_drawing_is_cut_at_the_onset_only_where_the_scheduler_remembers_nothing(base, name):
    schedule = Schedule(base, sample_with(name))
    assert schedule.remembers == (name in REMEMBERING)
    assert schedule.split == (0 if name in REMEMBERING else schedule.timing.fork)
    assert schedule.timing.fork > 0


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_trial_holds_for_every_prediction_type(prediction_type):
    assert not Schedule(make_base(prediction_type=prediction_type), SAMPLE).remembers


@pytest.mark.parametrize("name", [*NOISY, *FOREIGN, "NoSuchScheduler", "UNet2DModel"])
def test_a_scheduler_that_cannot_be_used_is_refused_by_name(base, name):
    with pytest.raises(BaseModelError, match=name):
        Sampler(base, None, sample_with(name))


def test_the_trial_leaves_the_random_state_alone(base):
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    Schedule(base, SAMPLE)
    assert torch.equal(torch.randn(4), expected)
