"""A checkpoint in the original layout: stock diffusers reads the same model from it, without a network, given a folder of configs."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from original_layout import write_configs, write_single_file
from tiny_base import make_pipeline

from pairlora.bases.sdxl import SDXLBase


@pytest.fixture(scope="module")
def pipeline():
    """Its text encoders differ in width, since diffusers tells them apart by it."""
    return make_pipeline(torch.float32, text_widths=(12, 16))


def predict(pipeline):
    base = SDXLBase(pipeline, name="tiny", digest="tiny")
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return base.predict(latents, torch.tensor([400]), base.encode_prompts(["a fox"]), 32), base.decode_latents(latents)[0]


def test_a_single_file_is_the_pipeline_that_it_was_written_of(pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_single_file(pipeline, tmp_path / "studio.safetensors")
    write_configs(pipeline, tmp_path / "configs")
    assert not list((tmp_path / "configs").rglob("*.safetensors"))
    loaded = StableDiffusionXLPipeline.from_single_file(
        str(tmp_path / "studio.safetensors"), config=str(tmp_path / "configs"), dtype=torch.float32, local_files_only=True
    )
    loaded.set_progress_bar_config(disable=True)
    (expected, drawn), (prediction, drawn_again) = predict(pipeline), predict(loaded)
    assert torch.equal(prediction, expected)
    assert drawn_again.tobytes() == drawn.tobytes()
