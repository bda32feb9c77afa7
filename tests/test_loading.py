"""Loading: folders and single files of every architecture give the model that was saved, and refusals name the remedy."""

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel
from original_flux import lay_out_originally as lay_out_flux
from original_layout import lay_out_originally
from safetensors.torch import load_file, save_file
from tiny_base import SIZE, make_picture, make_pipeline
from tiny_bases import make_flux_pipeline, make_sd15_pipeline

from pairlora.bases.flux import FluxBase
from pairlora.bases.loading import digest_base, load_base
from pairlora.bases.sd15 import SD15Base
from pairlora.bases.sdxl import SDXLBase
from pairlora.config import RunConfig
from pairlora.errors import BaseModelError
from pairlora.presets import PRESETS

KINDS = {"sdxl": (make_pipeline, SDXLBase), "sd15": (make_sd15_pipeline, SD15Base), "flux": (make_flux_pipeline, FluxBase)}


def predict(base):
    latents = torch.randn((1, *base.latent_shape(SIZE)), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return base.predict(latents, torch.tensor([400]), base.encode_prompts(["a fox in ink"]), SIZE)


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def single_file(request, tmp_path_factory):
    """A tiny model as one file, the folder of its configs without any weights, and the model itself."""
    folder = tmp_path_factory.mktemp(request.param)
    make, base_class = KINDS[request.param]
    pipeline = make_pipeline(torch.float32, text_widths=(8, 16)) if request.param == "sdxl" else make(torch.float32)
    pipeline.save_pretrained(folder / "configs")
    for path in (folder / "configs").rglob("*.safetensors"):
        path.unlink()
    save_file(lay_out_originally(pipeline), folder / "model.safetensors")
    return folder / "model.safetensors", folder / "configs", base_class(pipeline, name="", digest="")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_loads_as_the_model_that_was_saved(kind, tmp_path):
    make, base_class = KINDS[kind]
    pipeline = make(torch.float32)
    pipeline.save_pretrained(tmp_path)
    loaded = load_base(str(tmp_path))
    assert type(loaded) is base_class
    assert torch.equal(predict(loaded), predict(base_class(pipeline, name="", digest="")))


def test_a_single_file_loads_as_the_model_that_was_saved(single_file):
    path, configs, saved = single_file
    loaded = load_base(str(path), config=str(configs))
    assert type(loaded) is type(saved)
    assert torch.allclose(predict(loaded), predict(saved), atol=1e-6)
    for ours, expected in zip(loaded.encode_pictures([make_picture(0)]), saved.encode_pictures([make_picture(0)]), strict=True):
        assert torch.allclose(ours, expected, atol=1e-6)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    (ours,), (expected,) = loaded.decode_latents(latents), saved.decode_latents(latents)
    assert np.abs(np.asarray(ours, int) - np.asarray(expected, int)).max() <= 1


def test_a_single_file_is_identified_by_its_bytes_and_its_configs(single_file, tmp_path):
    path, configs, _ = single_file
    copy, other = tmp_path / "copy.safetensors", tmp_path / "other.safetensors"
    copy.write_bytes(path.read_bytes())
    other.write_bytes(path.read_bytes() + b" ")
    digest = digest_base(str(path), None, str(configs))
    assert digest_base(str(copy), None, str(configs)) == digest
    assert digest_base(str(other), None, str(configs)) != digest
    assert digest_base(str(path), "a-commit", "sd15") != digest


def test_a_single_file_without_configs_is_refused_with_the_remedy(single_file):
    with pytest.raises(BaseModelError, match=r"set base\.config to .*sdxl, sd15, flux, a folder"):
        load_base(str(single_file[0]))


def test_configs_that_cannot_be_fetched_are_refused_with_the_remedy(single_file, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BaseModelError, match=r"cannot be fetched; .* set base\.config to a folder"):
        load_base(str(single_file[0]), "a-commit", "sd15")


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"anything")
    with pytest.raises(BaseModelError, match="a pickle runs what is in it"):
        load_base(str(tmp_path / "model.ckpt"), config="sd15", revision="a-commit")


def test_pickled_weights_beside_the_configs_are_not_read(single_file, tmp_path):
    path, configs, _ = single_file
    shutil.copytree(configs, tmp_path / "configs")
    (tmp_path / "configs" / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"anything")
    weights = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("first_stage_model.")}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BaseModelError, match=r"let base\.config be a folder with vae/\*\.safetensors"):
        load_base(str(tmp_path / "model.safetensors"), config=str(tmp_path / "configs"))


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("out.2.weight", "does not fit the configs"),
        ("0.layer_norm1.bias", r"lacks 1 weights of text_encoder, .*layer_norm1\.bias among them"),
    ],
)
def test_a_file_that_lacks_weights_is_refused(single_file, tmp_path, ending, message):
    path, configs, _ = single_file
    weights = load_file(path)
    weights.pop(next(name for name in weights if name.endswith(ending)))
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BaseModelError, match=rf"{message}.* let base\.config be the model"):
        load_base(str(tmp_path / "model.safetensors"), config=str(configs))


def test_a_file_of_another_model_than_its_configs_is_refused(tmp_path):
    make_pipeline(torch.float32).save_pretrained(tmp_path / "configs")
    save_file(lay_out_originally(make_sd15_pipeline(torch.float32)), tmp_path / "model.safetensors")
    with pytest.raises(BaseModelError, match=r"let base\.config be the model that it descends from"):
        load_base(str(tmp_path / "model.safetensors"), config=str(tmp_path / "configs"))


def test_a_file_of_the_denoiser_alone_takes_the_other_parts_from_the_folder(tmp_path):
    pipeline = make_flux_pipeline(torch.float32)
    pipeline.save_pretrained(tmp_path / "configs")
    (tmp_path / "configs" / "transformer" / "diffusion_pytorch_model.safetensors").rename(tmp_path / "flux.safetensors")
    loaded = load_base(str(tmp_path / "flux.safetensors"), config=str(tmp_path / "configs"))
    assert torch.allclose(predict(loaded), predict(FluxBase(pipeline, name="", digest="")), atol=1e-6)


@pytest.mark.slow
def test_a_file_of_flux_in_its_authors_names_takes_the_other_parts_from_the_folder(tmp_path):
    """At full width, which diffusers takes for granted there: one double and one single block, 500 M weights."""
    pipeline = make_flux_pipeline(torch.float32)
    small: dict[str, Any] = {
        "num_layers": 1,
        "num_single_layers": 1,
        "in_channels": 16,
        "joint_attention_dim": 20,
        "pooled_projection_dim": 12,
    }
    with torch.device("meta"):
        wide: Any = FluxTransformer2DModel(**small, guidance_embeds=True)
    wide = wide.to(torch.bfloat16)
    wide.to_empty(device="cpu")
    with torch.no_grad():
        noise = 0.02 * torch.randn(2**16, generator=torch.Generator().manual_seed(0)).bfloat16()
        for index, parameter in enumerate(wide.parameters()):
            for part in parameter.view(-1).split(len(noise)):
                part.copy_(noise.roll(index)[: len(part)])
    pipeline.register_modules(transformer=wide)
    pipeline.to(torch.bfloat16)
    pipeline.save_pretrained(tmp_path / "configs")
    for path in (tmp_path / "configs" / "transformer").glob("*.safetensors"):
        path.unlink()
    save_file(lay_out_flux(wide), tmp_path / "flux.safetensors")
    loaded = load_base(str(tmp_path / "flux.safetensors"), config=str(tmp_path / "configs"), dtype="bfloat16")
    kept = loaded.denoiser.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in wide.state_dict().items())


def test_another_architecture_is_refused_by_name(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "KolorsPipeline"}))
    with pytest.raises(BaseModelError, match=r"is a KolorsPipeline; models of .*FluxPipeline are supported"):
        load_base(str(tmp_path))


def test_a_hub_id_needs_a_revision():
    with pytest.raises(BaseModelError, match="needs a revision"):
        load_base("someone/some-model")


@pytest.mark.parametrize("name", ["sdxl", "sd15", "flux"])
def test_a_single_file_takes_the_preset_of_its_config(name):
    common = {"manifest": "pairs.csv", "output": {"url": "out"}}
    named = RunConfig.model_validate(common | {"base": {"name": name}})
    single = RunConfig.model_validate(common | {"base": {"name": "model.safetensors", "config": name}})
    assert single.train == named.train
    assert single.base.revision == PRESETS[name]["base"]["revision"]
