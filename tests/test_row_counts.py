"""The closed form of the denoiser's rows, held to the rows that the sampler computes."""

import pytest
from styled_base import PROMPT, STYLED, draw, styled
from tiny_base import SAMPLE

from pairlora.config import SampleConfig
from pairlora.records import PlannedImage
from pairlora.sampling.plain_lora import make_plain_sampler
from pairlora.sampling.row_counts import count_planned_rows, count_published_rows, count_rows, count_rows_alone
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm
from pairlora.sampling.schedules import Schedule
from pairlora.sampling.trajectories import Timing, request_image

# diffusers turns its tensors into arrays in a way that numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

PAPER = SampleConfig()


def fan_out():
    """Two styles, two prompts, two seeds, two strengths, and the unstyled pictures."""
    places = [(prompt, seed) for prompt in (PROMPT, "a flat icon of a cat") for seed in (0, 1)]
    terms = [(slot, strength) for slot in (0, 1) for strength in (1.0, 2.0)]
    return [
        *(ImageRequest(prompt, seed) for prompt, seed in places),
        *(ImageRequest(p, seed, (StyleTerm(slot, f"{p} in ink", strength),)) for p, seed in places for slot, strength in terms),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"onset": 1000},
        {"onset": 0},
        {"steps": 1},
        {"guidance_scale": 1.0},
        {"guidance_interval": (800, 300)},
        {"scheduler": "HeunDiscreteScheduler"},
        {"scheduler": "PNDMScheduler"},
        {"batch_rows": 3},
    ],
)
def test_the_closed_form_counts_the_rows_that_are_computed(base, adapters, settings):
    sample = SampleConfig.model_validate(SAMPLE.model_dump() | {"steps": 6} | settings)
    sampler = Sampler(base, adapters, sample)
    requests = [*fan_out(), styled(1.0), ImageRequest(PROMPT, 2, (StyleTerm(0, STYLED, 1.0), StyleTerm(1, STYLED, 0.5)))]
    sampler.draw_latents(requests)
    assert sampler.rows_computed == count_rows(requests, sampler.schedule.timing)


def test_given_prefixes_cost_nothing(base, adapters):
    sampler = Sampler(base, adapters, SAMPLE.model_copy(update={"steps": 6}))
    prefixes = sampler.draw_prefixes([ImageRequest(PROMPT, 0).prefix])
    spent = sampler.rows_computed
    sampler.draw_latents(fan_out(), prefixes=prefixes)
    assert spent == 2 * sampler.schedule.split > 0
    assert sampler.rows_computed - spent == count_rows(fan_out(), sampler.schedule.timing, known=prefixes)


def test_rows_of_one_picture_of_fifty_steps():
    """Published code 150, the paper's schedule 140, without a style 100."""
    timing = Timing.evenly(PAPER)
    assert timing.fork == 10
    assert count_published_rows([styled(3.0)], 50) == 150
    assert count_rows([styled(3.0)], timing) == 140
    assert count_rows([ImageRequest(PROMPT, 0)], timing) == 100


def test_strengths_share_what_comes_before_they_part():
    """Ten shared steps of two rows, the first guided step of three, then 39 of two for the unstyled and of three for each styled one."""
    requests = [ImageRequest(PROMPT, 0), *(styled(strength) for strength in (1.0, 2.0, 3.0))]
    timing = Timing.evenly(PAPER)
    assert count_rows(requests, timing) == 10 * 2 + 3 + 39 * (2 + 3 * 3)
    assert count_rows_alone(requests, timing) == 100 + 3 * 140


def test_a_distilled_base_takes_two_rows_a_step_with_a_style_and_one_without(base, adapters):
    distilled = SAMPLE.model_copy(update={"guidance_scale": 1.0, "onset": 1000})
    sampler = Sampler(base, adapters, distilled)
    sampler.draw_latents([styled(1.0)])
    assert sampler.rows_computed == 2 * SAMPLE.steps
    sampler.draw_latents([ImageRequest(PROMPT, 0)])
    assert sampler.rows_computed == 3 * SAMPLE.steps


def test_the_first_step_asks_without_a_prompt_once_a_seed(base):
    requests = [ImageRequest(PROMPT, 0), ImageRequest("a flat icon of a cat", 0)]
    sampler = Sampler(base, None, SAMPLE)
    sampler.draw_latents(requests)
    assert sampler.rows_computed == 2 * 2 * SAMPLE.steps - 1


def test_evenly_spaced_timesteps_stand_for_those_of_the_scheduler(base):
    sample = SAMPLE.model_copy(update={"steps": 50})
    assert abs(Timing.evenly(sample).fork - Schedule(base, sample).timing.fork) <= 1


def test_a_picture_is_the_same_whoever_shares_its_rows(base, adapters):
    together = draw(base, adapters, *fan_out())
    alone = [draw(base, adapters, request)[0] for request in fan_out()]
    assert all((a - b).abs().max() < 1e-9 for a, b in zip(together, alone, strict=True))


def test_planned_pictures_of_a_plain_lora_are_counted_as_they_are_drawn(base, adapters):
    settings = [(0.0, None), (2.0, None), (0.0, 0.8), (0.0, 1.0)]
    planned = [
        PlannedImage(prompt=prompt, style_prompt=f"{prompt} in ink", seed=seed, strength=strength, lora_weight=weight)
        for prompt in (PROMPT, "a flat icon of a cat")
        for seed in (0, 1)
        for strength, weight in settings
    ]
    computed = 0
    for weight in (None, 0.8, 1.0):
        sampler = Sampler(base, adapters, SAMPLE) if weight is None else make_plain_sampler(base, adapters, SAMPLE)
        sampler.draw([request_image(one) for one in planned if one.lora_weight == weight])
        computed += sampler.rows_computed
    assert count_planned_rows(planned, Schedule(base, SAMPLE).timing) == computed
    guided = [one for one in planned if one.lora_weight is None]
    assert computed > count_planned_rows(guided, Schedule(base, SAMPLE).timing) > 0
