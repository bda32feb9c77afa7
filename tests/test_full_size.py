"""Published sizes, built without weights: the layers that take adapters, their widths, and the values of B."""

import pytest
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from tiny_base import make_pipeline
from tiny_bases import make_flux_pipeline, make_sd15_pipeline

from benchmarks.full_size import SDXL
from pairlora.adapters import Role
from pairlora.bases.flux import FluxBase
from pairlora.bases.sd15 import SD15Base
from pairlora.bases.sdxl import SDXLBase
from pairlora.config import SampleConfig, TrainConfig
from pairlora.presets import PRESETS
from pairlora.training.packs import fresh_adapters

SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
FLUX = {"guidance_embeds": True}

PUBLISHED = {
    "sdxl": (SDXLBase, make_pipeline, UNet2DConditionModel, SDXL, 560, {640, 1280, 2048}, 42_598_400),
    # 16 transformer blocks of 8 layers; their widths sum to 12,480, times 8 layers, times rank 64
    "sd15": (SD15Base, make_sd15_pipeline, UNet2DConditionModel, SD15, 128, {320, 640, 768, 1280}, 6_389_760),
    "flux": (FluxBase, make_flux_pipeline, FluxTransformer2DModel, FLUX, 304, {3072, 15360}, 29_884_416),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_model_takes_the_published_adapters(name):
    base_class, make, denoiser_class, config, layers, widths, values = PUBLISHED[name]
    pipeline = make(torch.float32)
    with torch.device("meta"):
        pipeline.register_modules(**{base_class.denoiser_name: denoiser_class(**config)})
    base = base_class(pipeline, name=name, digest="", device="meta")
    with fresh_adapters(base, TrainConfig(**PRESETS[name].get("train", {})), 1) as adapters:
        assert len(adapters.layers) == layers
        assert {layer.linear.in_features for layer in adapters.layers.values()} == widths
        for role in Role:
            assert sum(parameter.numel() for parameter in adapters.parameters(role)) == values


def test_flux_starts_style_guidance_after_ten_of_fifty_steps():
    sample = SampleConfig(**PRESETS["flux"]["sample"])
    base = FluxBase(make_flux_pipeline(torch.float32), name="tiny", digest="tiny")
    same_patches = sample.size // 8 * base.pipeline.vae_scale_factor  # FLUX's own autoencoder divides by 8
    timesteps = base.make_scheduler(sample.scheduler, sample.steps, same_patches).timesteps
    assert len(timesteps) == 50
    assert [float(t) <= sample.onset for t in timesteps] == [False] * 10 + [True] * 40
    assert 6.0 in sample.strengths
