"""A checkpoint in the original layout: diffusers reads the same model from it, without a network, given a folder of configs."""

# diffusers annotates sizes as one-tuples
# pyright: reportArgumentType=false

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from original_layout import write_configs, write_single_file
from tiny_base import make_pipeline

from pairlora.bases.sdxl import SDXLBase


def make_sdxl():
    """Its text encoders differ in width, since diffusers tells them apart by it."""
    return make_pipeline(torch.float32, text_widths=(12, 16))


def make_sd15():
    parts = make_pipeline(torch.float32)
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=2,
        attention_head_dim=2,
        cross_attention_dim=12,
        norm_num_groups=4,
    )
    return StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=unet,
        scheduler=parts.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def reload(pipeline, folder):
    write_single_file(pipeline, folder / "studio.safetensors")
    write_configs(pipeline, folder / "configs")
    return type(pipeline).from_single_file(
        str(folder / "studio.safetensors"), config=str(folder / "configs"), dtype=torch.float32, local_files_only=True
    )


@pytest.mark.parametrize("make", [make_sdxl, make_sd15])
def test_every_weight_of_a_single_file_is_where_it_was(make, tmp_path):
    pipeline = make()
    loaded = reload(pipeline, tmp_path)
    assert not list((tmp_path / "configs").rglob("*.safetensors"))
    for part in ("unet", "vae", "text_encoder", *(("text_encoder_2",) if make is make_sdxl else ())):
        weights, again = getattr(pipeline, part).state_dict(), getattr(loaded, part).state_dict()
        assert weights.keys() == again.keys()
        assert all(torch.equal(weight, again[name]) for name, weight in weights.items()), part


def test_a_single_file_predicts_the_same(tmp_path):
    def predict(pipeline):
        base = SDXLBase(pipeline, name="tiny", digest="tiny")
        latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            return base.predict(latents, torch.tensor([400]), base.encode_prompts(["a fox"]), 32)

    pipeline = make_sdxl()
    assert torch.allclose(predict(reload(pipeline, tmp_path)), predict(pipeline), atol=1e-5)
