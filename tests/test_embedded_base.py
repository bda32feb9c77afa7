"""The base that comes along: loaded by stock tools, and held to the same laws as the tiny one, in float32 (laws a, d, f, i)."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from pairlora.adapters import Role, Segment
from pairlora.adapters.files import encode_adapter
from pairlora.bases import load_base
from pairlora.bases.loading import EMBEDDED
from pairlora.config import SampleConfig, TrainConfig
from pairlora.execution.pipeline import style_attached
from pairlora.presets import PRESETS
from pairlora.sampling.sampler import ImageRequest, Sampler, initial_noise
from pairlora.training.packs import TrainingPair, train_pack

PROMPT = "a flat icon of a fox, centred on white"
TRAIN = TrainConfig.model_validate(PRESETS["embedded"]["train"] | {"steps": 4, "content_steps": 2, "draws": 1})
SAMPLE = SampleConfig.model_validate(PRESETS["embedded"]["sample"] | {"steps": 4})

pytestmark = pytest.mark.slow


def make_pair(colour):
    return TrainingPair(colour, Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), colour), PROMPT, f"{PROMPT}, in ink")


@pytest.fixture(scope="module")
def base():
    return load_base("embedded")


@pytest.fixture(scope="module")
def trained(base):
    return train_pack(base, [make_pair("red"), make_pair("blue")], TRAIN)


@pytest.fixture
def stock():
    pipeline = StableDiffusionXLPipeline.from_pretrained(EMBEDDED)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def predict(base):
    latents = torch.randn((1, *base.latent_shape(64)), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return base.predict(latents, torch.tensor([500]), base.encode_prompts([f"{PROMPT}, in ink"]), 64)


def test_an_unstyled_picture_is_what_the_stock_pipeline_draws(base, stock):
    noise = initial_noise(5, base.latent_shape(64))[None]
    size = {"height": 64, "width": 64, "output_type": "latent"}
    drawn = stock(PROMPT, latents=noise, num_inference_steps=4, guidance_scale=SAMPLE.guidance_scale, **size).images
    ours = Sampler(base, None, SAMPLE).draw_latents([ImageRequest(PROMPT, 5)])
    assert torch.allclose(ours, drawn, atol=1e-3)


def test_its_adapters_are_orthogonal(trained):
    for name, (content, _) in trained[0].matrices[Role.CONTENT].items():
        assert (content @ trained[0].matrices[Role.STYLE][name][0].T).abs().max() < 1e-7


def test_a_packed_pair_equals_the_pair_alone(base, trained):
    (alone,) = train_pack(base, [make_pair("blue")], TRAIN)
    steps = [(a.content_loss, b.content_loss) for a, b in zip(alone.losses, trained[1].losses, strict=True)]
    assert all(first == pytest.approx(second, rel=1e-4) for first, second in steps)


def test_stock_diffusers_predicts_the_same_with_its_file(base, trained, stock, tmp_path):
    style = trained[0].matrices[Role.STYLE]
    with style_attached(base, style) as adapters, adapters.routed([Segment(0, 1, Role.STYLE, (0,))]):
        expected = predict(base)
    (tmp_path / "style.safetensors").write_bytes(encode_adapter(style, {}))
    stock.load_lora_weights(tmp_path, weight_name="style.safetensors")
    plain, base.denoiser = base.denoiser, stock.unet
    loaded = predict(base)
    base.denoiser = plain
    assert torch.allclose(loaded, expected, atol=1e-4)
    assert (expected - predict(base)).abs().max() > 1e-3
