"""Schedulers by name: the stock pipeline's pictures, no dependence on the batch, and which cannot be used (laws a, h)."""

import diffusers
import pytest
import torch
from styled_base import PROMPT, draw, draw_stock, styled
from tiny_base import SAMPLE, make_base

from pairlora.bases.sdxl import SDXLBase
from pairlora.errors import BaseModelError
from pairlora.sampling.sampler import ImageRequest, Sampler, initial_noise
from pairlora.sampling.schedules import Schedule

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


class FlowBase(SDXLBase):
    """The tiny base's classes as a flow-matching model: latents lie on the straight line from picture to noise."""

    def add_noise(self, latents, noise, timesteps):
        sigma = (timesteps / self.timesteps).to(latents)[:, None, None, None]
        return (1 - sigma) * latents + sigma * noise

    def training_target(self, latents, noise, timesteps):
        return noise - latents

    def make_scheduler(self, name, steps, size=None):
        scheduler = getattr(diffusers, name or "FlowMatchEulerDiscreteScheduler")()
        scheduler.set_timesteps(steps)
        return scheduler


def test_a_flow_matching_base_draws_with_schedulers_of_its_kind(base):
    """Each step follows the guided velocity along the straight line."""
    flow, sample = FlowBase(base.pipeline, name="flow", digest="flow"), sample_with(None)
    sampler = Sampler(flow, None, sample)
    x, told = initial_noise(0, base.latent_shape(32))[None].double(), base.encode_prompts(["", PROMPT])
    sigmas = sampler.schedule.open().sigmas
    for t, sigma, after in zip(sampler.schedule.timesteps, sigmas[:-1], sigmas[1:], strict=True):
        with torch.inference_mode():
            uncond, cond = base.predict(x.expand(2, -1, -1, -1), t.expand(2), told, 32).chunk(2)
        x = x + (after - sigma) * (uncond + sample.guidance_scale * (cond - uncond))
    assert sampler.schedule.split > 0
    assert torch.allclose(sampler.draw_latents([ImageRequest(PROMPT, 0)]), x, atol=1e-4)


def test_a_scheduler_of_another_kind_is_refused_on_a_flow_matching_base(base):
    with pytest.raises(BaseModelError, match="DDIMScheduler does not lead base 'flow'"):
        Sampler(FlowBase(base.pipeline, name="flow", digest="flow"), None, sample_with("DDIMScheduler"))


def test_the_trial_leaves_the_random_state_alone(base):
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    Schedule(base, SAMPLE)
    assert torch.equal(torch.randn(4), expected)
