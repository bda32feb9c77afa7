"""Laws of the sampler: the base's own pictures at strength 0, and sums that do not depend on the batch (laws a-c, g, h)."""

import pytest
import torch
from styled_base import PROMPT, STYLED, draw, draw_stock, styled
from tiny_base import SAMPLE, make_base, make_picture

from pairlora.adapters import Role, Segment
from pairlora.identity import ALGORITHM_VERSION
from pairlora.sampling.guidance import guide
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm, cut_evenly, initial_noise, route_slots

GOLDEN_LATENTS = [1.348038, 4.692964, -1.942904, 0.834416]
EVERY_STEP = SAMPLE.model_copy(update={"onset": 1000})


def test_strength_zero_draws_what_the_stock_pipeline_draws(base, adapters):
    ours = draw(base, adapters, ImageRequest(PROMPT, 7, (StyleTerm(0, STYLED, 0.0),)))
    assert torch.allclose(ours, draw_stock(base, 7), atol=1e-9)


def test_no_guidance_draws_what_the_stock_pipeline_draws_without(base, adapters):
    ours = draw(base, adapters, ImageRequest(PROMPT, 7), sample=SAMPLE.model_copy(update={"guidance_scale": 1.0}))
    assert torch.allclose(ours, draw_stock(base, 7, guidance_scale=1.0), atol=1e-9)


def test_an_untrained_adapter_changes_nothing_at_any_strength(base, adapters):
    kept = [parameter.data[1].clone() for parameter in adapters.parameters(Role.STYLE)]
    for parameter in adapters.parameters(Role.STYLE):
        parameter.data[1] = 0
    plain, with_style = draw(base, adapters, ImageRequest(PROMPT, 0), styled(4.0, slot=1, prompt=PROMPT))
    for parameter, before in zip(adapters.parameters(Role.STYLE), kept, strict=True):
        parameter.data[1] = before
    assert torch.allclose(plain, with_style, atol=1e-9)


def test_a_style_changes_the_picture(base, adapters):
    plain, with_style = draw(base, adapters, ImageRequest(PROMPT, 0), styled(3.0))
    assert (plain - with_style).abs().max() > 1e-3


def test_two_half_strengths_equal_one_full(base, adapters):
    kept = [parameter.data[1].clone() for parameter in adapters.parameters(Role.STYLE)]
    for parameter in adapters.parameters(Role.STYLE):
        parameter.data[1] = parameter.data[0]
    halves = draw(base, adapters, ImageRequest(PROMPT, 0, (StyleTerm(0, STYLED, 1.5), StyleTerm(1, STYLED, 1.5))))
    for parameter, before in zip(adapters.parameters(Role.STYLE), kept, strict=True):
        parameter.data[1] = before
    assert torch.allclose(halves, draw(base, adapters, styled(3.0)), atol=1e-9)


def test_a_batch_equals_its_pictures_one_by_one(base, adapters):
    requests = [ImageRequest(PROMPT, 0), styled(1.0), styled(3.0, slot=1), styled(2.0, seed=4), styled(-1.0)]
    together = draw(base, adapters, *requests)
    alone = torch.cat([draw(base, adapters, request) for request in requests])
    assert torch.allclose(together, alone, atol=1e-9)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_size_of_a_forward_changes_nothing(base, adapters, rows):
    requests = [ImageRequest(PROMPT, 0), styled(1.0), styled(3.0, slot=1)]
    small = SAMPLE.model_copy(update={"batch_rows": rows})
    assert torch.allclose(draw(base, adapters, *requests, sample=small), draw(base, adapters, *requests), atol=1e-9)


def predict_row(base, adapters, slot, x, t, prompt):
    """One row through one slot by itself: what the sampler's forwards must agree with (law g)."""
    with torch.inference_mode(), adapters.routed([] if slot is None else [Segment(0, 1, Role.STYLE, (slot,))]):
        return base.predict(x, t.expand(1), base.encode_prompts([prompt]), 32)


def test_a_guided_step_is_the_equation(base, adapters):
    one_step = EVERY_STEP.model_copy(update={"steps": 1})
    drawn = draw(base, adapters, ImageRequest(PROMPT, 0, (StyleTerm(0, STYLED, 2.0), StyleTerm(1, STYLED, -0.5))), sample=one_step)
    scheduler = base.make_scheduler(None, 1)
    t, x = scheduler.timesteps[0], initial_noise(0, base.latent_shape(32))[None].double()
    rows = [predict_row(base, adapters, slot, x, t, p) for slot, p in ((None, ""), (None, PROMPT), (0, STYLED), (1, STYLED))]
    combined = guide(rows[0], rows[1], rows[2:], guidance_scale=3.0, strengths=[2.0, -0.5])
    assert torch.allclose(drawn, scheduler.step(combined, t, x).prev_sample, atol=1e-9)


def test_before_the_onset_the_style_is_not_asked(base, adapters):
    never = SAMPLE.model_copy(update={"onset": 0})
    plain, with_style = draw(base, adapters, ImageRequest(PROMPT, 0), styled(5.0), sample=never)
    assert torch.allclose(plain, with_style, atol=1e-12)


def test_a_prompt_that_is_empty_is_the_unconditional_row(base, adapters):
    empty = ImageRequest("", 0, (StyleTerm(0, STYLED, 1.0),))
    one_step = EVERY_STEP.model_copy(update={"steps": 1})
    sampler = Sampler(base, adapters, one_step)
    drawn = sampler.draw_latents([empty])
    scheduler = base.make_scheduler(None, 1)
    t, x = scheduler.timesteps[0], initial_noise(0, base.latent_shape(32))[None].double()
    uncond, style = (predict_row(base, adapters, slot, x, t, prompt) for slot, prompt in ((None, ""), (0, STYLED)))
    assert torch.allclose(drawn, scheduler.step(style * 1.0 + uncond * 0.0, t, x).prev_sample, atol=1e-9)
    assert sampler.rows_computed == 2


def test_slots_with_equally_many_rows_share_a_segment():
    assert route_slots([None, 0, 0, 2, 2, 3]) == [Segment(1, 5, Role.STYLE, (0, 2)), Segment(5, 6, Role.STYLE, (3,))]
    assert route_slots([None, None]) == []


@pytest.mark.parametrize(("count", "most", "lengths"), [(7, 3, [2, 2, 3]), (3, 8, [3]), (8, 4, [4, 4]), (1, 1, [1])])
def test_rows_are_cut_evenly(count, most, lengths):
    pieces = cut_evenly(count, most)
    assert sorted(piece.stop - piece.start for piece in pieces) == lengths
    assert [index for piece in pieces for index in range(piece.start, piece.stop)] == list(range(count))


INTERVAL = EVERY_STEP.model_copy(update={"guidance_interval": (600, 100)})


def test_an_interval_that_holds_every_timestep_is_no_approximation(base, adapters):
    whole = EVERY_STEP.model_copy(update={"guidance_interval": (1000, 0)})
    assert torch.equal(draw(base, adapters, styled(2.0), sample=whole), draw(base, adapters, styled(2.0), sample=EVERY_STEP))


def test_outside_of_the_interval_the_prediction_is_the_conditional_one(base, adapters):
    """Timesteps 751, 501, 251 and 1: the first and the last have no unconditional row."""
    sampler = Sampler(base, adapters, INTERVAL)
    assert sampler.schedule.timing.guidance_scales == (1.0, 3.0, 3.0, 1.0)
    never = EVERY_STEP.model_copy(update={"guidance_interval": (0, 0)})
    assert torch.allclose(draw(base, adapters, ImageRequest(PROMPT, 7), sample=never), draw_stock(base, 7, guidance_scale=1.0), atol=1e-9)
    sampler.draw_latents([styled(2.0)])
    assert sampler.rows_computed == 2 + 3 + 3 + 2


def test_outside_of_the_interval_strengths_keep_their_share(base, adapters):
    """At Σλ = λ_cfg what is left there is the styled prediction alone, as with a guidance scale of 1 and a strength of 1."""
    never = EVERY_STEP.model_copy(update={"guidance_interval": (0, 0)})
    distilled = EVERY_STEP.model_copy(update={"guidance_scale": 1.0})
    assert torch.allclose(draw(base, adapters, styled(3.0), sample=never), draw(base, adapters, styled(1.0), sample=distilled), atol=1e-9)


def test_the_noise_of_a_seed_does_not_depend_on_the_batch():
    assert torch.equal(initial_noise(3, (4, 8, 8)), initial_noise(3, (4, 8, 8)))
    assert not torch.equal(initial_noise(3, (4, 8, 8)), initial_noise(4, (4, 8, 8)))


def test_golden_latents(base, adapters):
    """Where these move, drawn pictures have changed: raise ALGORITHM_VERSION in the same commit."""
    latents = draw(base, adapters, styled(2.0, seed=3))
    assert ALGORITHM_VERSION == 1
    assert latents.flatten()[:4].tolist() == pytest.approx(GOLDEN_LATENTS, rel=1e-4)


def test_noise_levels_stay_exact_on_a_half_precision_base():
    half = make_base(torch.bfloat16)
    mean, std = half.encode_pictures([make_picture(0)])
    assert mean.dtype == std.dtype == torch.float32
    noise, t = torch.randn_like(mean), torch.tensor([10])
    alpha = half.pipeline.scheduler.alphas_cumprod[10]
    assert torch.allclose(half.add_noise(mean, noise, t), alpha.sqrt() * mean + (1 - alpha).sqrt() * noise, atol=1e-6)
    drawn = Sampler(half, None, SAMPLE).draw_latents([ImageRequest(PROMPT, 0)])
    assert drawn.dtype == torch.float32
