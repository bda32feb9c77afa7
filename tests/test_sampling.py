"""Laws of the sampler: the base's own pictures at strength 0, and sums that do not depend on the batch (laws a-c, g, h)."""

import pytest
import torch
from tiny_base import SAMPLE, TRAIN, make_base, make_picture

from pairlora.adapters import Role
from pairlora.errors import BaseModelError
from pairlora.guidance import guide
from pairlora.identity import ALGORITHM_VERSION
from pairlora.sampling import ImageRequest, Sampler, StyleTerm, initial_noise
from pairlora.training import fresh_adapters

GOLDEN_LATENTS = [1.348038, 4.692964, -1.942904, 0.834416]
PROMPT, STYLED = "a flat icon of a fox", "a flat icon of a fox in ink"
EVERY_STEP = SAMPLE.model_copy(update={"onset": 1000})


@pytest.fixture(scope="module")
def base():
    return make_base()


@pytest.fixture(scope="module")
def adapters(base):
    """Two slots of random style adapters."""
    with fresh_adapters(base, TRAIN, 2) as adapters:
        generator = torch.Generator().manual_seed(5)
        for parameter in adapters.parameters(Role.STYLE):
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter)
        yield adapters


def draw(base, adapters, *requests, sample=SAMPLE):
    return Sampler(base, adapters, sample).draw_latents(requests)


def styled(strength, slot=0, prompt=STYLED, seed=0):
    return ImageRequest(PROMPT, seed, (StyleTerm(slot, prompt, strength),))


def test_strength_zero_draws_what_the_stock_pipeline_draws(base, adapters):
    noise = initial_noise(7, base.latent_shape(32))[None].double()
    stock = base.pipeline(
        PROMPT, latents=noise, num_inference_steps=4, guidance_scale=3.0, height=32, width=32, output_type="latent", return_dict=False
    )[0]
    ours = draw(base, adapters, ImageRequest(PROMPT, 7, (StyleTerm(0, STYLED, 0.0),)))
    assert torch.allclose(ours, stock, atol=1e-9)


def test_no_guidance_draws_what_the_stock_pipeline_draws_without(base, adapters):
    noise = initial_noise(7, base.latent_shape(32))[None].double()
    stock = base.pipeline(
        PROMPT, latents=noise, num_inference_steps=4, guidance_scale=1.0, height=32, width=32, output_type="latent", return_dict=False
    )[0]
    assert torch.allclose(
        draw(base, adapters, ImageRequest(PROMPT, 7), sample=SAMPLE.model_copy(update={"guidance_scale": 1.0})), stock, atol=1e-9
    )


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


def test_a_guided_step_is_the_equation(base, adapters):
    one_step = EVERY_STEP.model_copy(update={"steps": 1})
    drawn = draw(base, adapters, ImageRequest(PROMPT, 0, (StyleTerm(0, STYLED, 2.0), StyleTerm(1, STYLED, -0.5))), sample=one_step)
    scheduler = base.make_scheduler(None, 1)
    t, x = scheduler.timesteps[0], initial_noise(0, base.latent_shape(32))[None].double()
    sampler = Sampler(base, adapters, one_step)
    with torch.inference_mode():
        rows = [
            sampler._predict([slot], x, t, base.encode_prompts([p])) for slot, p in ((None, ""), (None, PROMPT), (0, STYLED), (1, STYLED))
        ]
    combined = guide(rows[0], rows[1], rows[2:], guidance_scale=3.0, strengths=[2.0, -0.5])
    assert torch.allclose(drawn, scheduler.step(combined, t, x).prev_sample, atol=1e-9)


def test_before_the_onset_the_style_is_not_asked(base, adapters):
    never = SAMPLE.model_copy(update={"onset": 0})
    plain, with_style = draw(base, adapters, ImageRequest(PROMPT, 0), styled(5.0), sample=never)
    assert torch.allclose(plain, with_style, atol=1e-12)


def test_rows_before_the_onset_are_shared(base, adapters):
    counted = []
    sampler = Sampler(base, adapters, SAMPLE)
    predict = sampler._predict
    sampler._predict = lambda slots, *rest: counted.append(len(slots)) or predict(slots, *rest)  # type: ignore[method-assign]
    sampler.draw_latents([ImageRequest(PROMPT, 0), styled(1.0), styled(2.0), styled(3.0)])
    # timesteps 751, 501, 251, 1 with onset 800: the first guided forward shares ∅, c and the style row;
    # afterwards the unstyled picture needs 2 rows and each strength 3
    assert counted == [3, 11, 11, 11]


def test_the_noise_of_a_seed_does_not_depend_on_the_batch():
    assert torch.equal(initial_noise(3, (4, 8, 8)), initial_noise(3, (4, 8, 8)))
    assert not torch.equal(initial_noise(3, (4, 8, 8)), initial_noise(4, (4, 8, 8)))


def test_golden_latents(base, adapters):
    """Where these move, drawn pictures have changed: raise ALGORITHM_VERSION in the same commit."""
    latents = draw(base, adapters, styled(2.0, seed=3))
    assert ALGORITHM_VERSION == 1
    assert latents.flatten()[:4].tolist() == pytest.approx(GOLDEN_LATENTS, rel=1e-4)


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "NoSuchScheduler"])
def test_a_scheduler_that_cannot_be_used_is_refused(base, name):
    with pytest.raises(BaseModelError, match=name):
        base.make_scheduler(name, 4)


def test_noise_levels_stay_exact_on_a_half_precision_base():
    half = make_base(torch.bfloat16)
    mean, std = half.encode_pictures([make_picture(0)])
    assert mean.dtype == std.dtype == torch.float32
    noise, t = torch.randn_like(mean), torch.tensor([10])
    alpha = half.pipeline.scheduler.alphas_cumprod[10]
    assert torch.allclose(half.add_noise(mean, noise, t), alpha.sqrt() * mean + (1 - alpha).sqrt() * noise, atol=1e-6)
    drawn = Sampler(half, None, SAMPLE).draw_latents([ImageRequest(PROMPT, 0)])
    assert drawn.dtype == torch.float32
