"""A finished picture in the sampler: strength 0 gives it back, and noise gives what the stock pipeline gives."""

import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from styled_base import PROMPT, STYLED, random_styles
from tiny_base import SAMPLE, make_base, make_picture
from tiny_bases import MAKERS

from pairlora.config import SampleConfig
from pairlora.errors import BaseModelError
from pairlora.sampling.inversion import add_starting_noise, check_start, invert
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm, initial_noise

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers with NumPy 2
STEPS, TIMESTEP, ENOUGH = 40, 150, 40


def configure(**settings) -> SampleConfig:
    return SAMPLE.model_copy(update={"steps": STEPS, "onset": TIMESTEP, "guidance_scale": 1.0} | settings)


def ask(origin: str, *styles: StyleTerm) -> ImageRequest:
    return ImageRequest(PROMPT, 0, styles, origin)


def encode(base, *seeds: int) -> torch.Tensor:
    return base.encode_pictures([make_picture(seed) for seed in seeds])[0]


def reconstruct(base, sample: SampleConfig, refinements: int, clean: torch.Tensor) -> torch.Tensor:
    requests = [ask(str(index)) for index in range(len(clean))]
    sampler = Sampler(base, None, sample)
    return sampler.continue_latents(requests, invert(sampler, requests, clean, refinements))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("guidance_scale", [1.0, 1.2])
def test_strength_0_gives_the_picture_back(prediction_type: str, guidance_scale: float):
    base = make_base(prediction_type=prediction_type)
    clean = encode(base, 1, 2)
    found = reconstruct(base, configure(guidance_scale=guidance_scale), ENOUGH, clean)
    assert (found - clean).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["sd15", "flux"])
def test_other_bases_come_back_too(name: str):
    base = MAKERS[name]()
    sample = configure(scheduler=None if name == "flux" else "EulerDiscreteScheduler", onset=600 if name == "flux" else TIMESTEP)
    clean = encode(base, 1)
    assert (reconstruct(base, sample, ENOUGH, clean) - clean).abs().max() < 1e-4  # Euler's steps are taken in float32


def test_euler_on_a_diffusion_base_comes_back():
    base = make_base()
    clean = encode(base, 1)
    found = reconstruct(base, configure(scheduler="EulerDiscreteScheduler"), ENOUGH, clean)
    assert (found - clean).abs().max() < 1e-4


def test_each_refinement_of_the_fixed_point_brings_the_picture_nearer():
    base = make_base()
    clean = encode(base, 1)
    errors = [(reconstruct(base, configure(), count, clean) - clean).abs().max().item() for count in (0, 1, 3)]
    assert errors[0] > 1.5 * errors[1] > 3 * errors[2]


def test_a_style_of_strength_0_is_the_reconstruction_and_another_is_not():
    base = make_base()
    clean = encode(base, 1)
    with random_styles(base) as adapters:
        sampler = Sampler(base, adapters, configure())
        plain, zero, some = ask("a"), ask("a", StyleTerm(0, STYLED, 0.0)), ask("a", StyleTerm(0, STYLED, 2.0))
        starts = invert(sampler, [plain], clean, 3)
        expected, found, styled = sampler.continue_latents([plain, zero, some], starts)
    assert torch.equal(expected, found)
    assert (styled - expected).abs().max() > 1e-3


def test_assets_drawn_together_are_as_drawn_alone():
    base = make_base()
    clean = encode(base, 1, 2)
    with random_styles(base) as adapters:
        sampler = Sampler(base, adapters, configure())
        requests = [ask(origin, StyleTerm(0, STYLED, 2.0)) for origin in "ab"]
        plain = [ask(origin) for origin in "ab"]
        together = sampler.continue_latents(requests, invert(sampler, plain, clean, 2))
        alone = [
            sampler.continue_latents([one], invert(sampler, [start], latents[None], 2))[0]
            for one, start, latents in zip(requests, plain, clean, strict=True)
        ]
    assert (together - torch.stack(alone)).abs().max() < 1e-9


@pytest.mark.parametrize("scheduler", [None, "EulerDiscreteScheduler"])
def test_noise_at_strength_0_is_the_stock_img2img_pipeline(scheduler: str | None):
    base = make_base()
    sample = configure(guidance_scale=3.0, scheduler=scheduler)
    clean, noise = encode(base, 1), initial_noise(7, base.latent_shape(32))
    sampler = Sampler(base, None, sample)
    starts = add_starting_noise(sampler, [ask("a")], clean, noise)
    found = sampler.continue_latents([ask("a")], starts)
    stock = StableDiffusionXLImg2ImgPipeline(**base.pipeline.components)
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = base.make_scheduler(scheduler, STEPS)
    left = STEPS - sampler.schedule.timing.fork
    strength = left / STEPS
    timesteps = sampler.schedule.timesteps[-left:]
    start = sampler.schedule.open(STEPS - left).add_noise(clean, noise[None].double(), timesteps[0][None])
    expected = stock(
        PROMPT, image=make_picture(1), strength=strength, num_inference_steps=STEPS, guidance_scale=3.0,
        latents=start, output_type="latent", return_dict=False,
    )[0]  # fmt: skip
    assert torch.allclose(starts[ask("a").prefix], start[0])
    assert (found - expected).abs().max() < (1e-9 if scheduler is None else 1e-4)


def test_pictures_that_are_no_squares_are_drawn_and_come_back():
    base = make_base()
    picture = make_picture(1, 64).crop((0, 0, 64, 32))
    clean = base.encode_pictures([picture])[0]
    sampler = Sampler(base, None, configure(), size=(32, 64))
    found = sampler.continue_latents([ask("a")], invert(sampler, [ask("a")], clean, ENOUGH))
    assert base.decode_latents(found)[0].size == (64, 32)
    assert (found - clean).abs().max() < 1e-9


def test_schedulers_that_remember_or_clip_are_refused_with_the_remedy():
    base = make_base()
    with pytest.raises(BaseModelError, match=r"set sample\.scheduler"):
        check_start(Sampler(base, None, configure(scheduler="DPMSolverMultistepScheduler")).schedule)
    with pytest.raises(BaseModelError, match=r"below entry\.timestep"):
        check_start(Sampler(base, None, configure(onset=0, steps=4)).schedule)
    base.pipeline.scheduler.register_to_config(clip_sample=True)
    sampler = Sampler(base, None, configure())
    with pytest.raises(BaseModelError, match="taken backwards"):
        invert(sampler, [ask("a")], encode(base, 1), 1)
