"""Who opens our files: stock diffusers and PEFT load them for real; other tools' keys are held to tables of their conventions."""

import json
import re
from itertools import product
from pathlib import Path

import peft
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from made_adapters import TRAIN, make_adapter, make_matrices, make_release
from safetensors.torch import load
from test_full_size import PUBLISHED
from tiny_bases import MAKERS

from pairlora.adapters import Role, Segment
from pairlora.adapters.basis import Basis
from pairlora.adapters.files import lay_out_for_diffusers
from pairlora.adapters.foreign import strip_prefixes
from pairlora.adapters.kohya import lay_out_for_kohya, name_layers
from pairlora.adapters.masters import StoredAdapter
from pairlora.adapters.stacking import styles_attached
from pairlora.config import TrainConfig
from pairlora.presets import PRESETS
from pairlora.release.files import encode_for_diffusers, encode_for_kohya, measure_overlap

FILES = [(family, "diffusers") for family in MAKERS] + [("sdxl", "kohya"), ("sd15", "kohya")]
ENCODERS = {"diffusers": encode_for_diffusers, "kohya": encode_for_kohya}


def predict(base, prompt: str = "a fox, in ink") -> torch.Tensor:
    channels, *_ = base.latent_shape(32)
    latents = torch.randn((1, channels, 8, 8), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return base.predict(latents.to(base.denoiser.dtype), torch.tensor([400]), base.encode_prompts([prompt]), 32)


def predict_ours(base, matrices) -> torch.Tensor:
    with styles_attached(base.denoiser, [matrices]) as adapters, adapters.routed([Segment(0, 1, Role.STYLE, (0,))]):
        return predict(base)


def read_header(data: bytes) -> dict[str, str]:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def list_lora_layers(denoiser, tensors: dict[str, torch.Tensor]) -> set[str]:
    """The layers on which PEFT has an adapter, each checked against the file's tensors in their order of names."""
    layers = {name: module for name, module in denoiser.named_modules() if isinstance(module, peft.tuners.lora.LoraLayer)}
    assert len(tensors) == 2 * len(layers), "every key is consumed"
    return set(layers)


@pytest.mark.parametrize(("family", "layout"), FILES)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_stock_diffusers_loads_every_key_and_predicts_the_same(family: str, layout: str, precision, tmp_path: Path):
    ours, stock = MAKERS[family](torch.float32), MAKERS[family](torch.float32)
    adapter = make_adapter(ours)
    data = ENCODERS[layout](adapter, make_release(), precision)
    (tmp_path / "style.safetensors").write_bytes(data)
    plain = predict(stock)
    stock.pipeline.load_lora_weights(tmp_path, weight_name="style.safetensors")
    tensors = {key: tensor for key, tensor in load(data).items() if not key.endswith(".alpha")}
    assert list_lora_layers(stock.denoiser, tensors) == adapter.matrices.keys()
    expected = predict_ours(ours, adapter.matrices)
    assert (predict(stock) - expected).abs().max() < (1e-4 if precision == "float32" else 1e-2)
    assert (expected - plain).abs().max() > 0.05


@pytest.mark.parametrize("family", MAKERS)
def test_peft_alone_loads_every_key_and_predicts_the_same(family: str):
    ours, stock = MAKERS[family](torch.float32), MAKERS[family](torch.float32)
    adapter = make_adapter(ours)
    data = encode_for_diffusers(adapter, make_release(), "float32")
    settings = {key.partition(".")[2]: value for key, value in json.loads(read_header(data)["lora_adapter_metadata"]).items()}
    model = peft.inject_adapter_in_model(peft.LoraConfig(**settings), stock.denoiser)
    prefix = f"{stock.denoiser_name}."
    result = peft.set_peft_model_state_dict(model, {key.removeprefix(prefix): tensor for key, tensor in load(data).items()})
    assert result.unexpected_keys == []
    assert [key for key in result.missing_keys if "lora" in key] == []
    assert (predict(stock) - predict_ours(ours, adapter.matrices)).abs().max() < 1e-4


@pytest.fixture(scope="module", params=PUBLISHED)
def full_size(request):
    """A published model without weights, and an adapter of its published rank."""
    base_class, make, denoiser_class, config, layers, *_ = PUBLISHED[request.param]
    pipeline = make(torch.float32)
    with torch.device("meta"):
        pipeline.register_modules(**{base_class.denoiser_name: denoiser_class(**config)})
    base = base_class(pipeline, name=request.param, digest="", device="meta")
    return base, make_matrices(base, train=TrainConfig(**PRESETS[request.param].get("train", {}))), layers


def test_peft_finds_a_place_for_every_key_of_a_full_size_file(full_size):
    base, matrices, layers = full_size
    tensors = lay_out_for_diffusers(matrices, "unet")
    assert len(tensors) == 2 * layers
    rank = len(next(iter(matrices.values()))[0])
    model = peft.inject_adapter_in_model(peft.LoraConfig(r=rank, target_modules=sorted(matrices)), base.denoiser)
    places = {key.replace(".default.", "."): tensor.shape for key, tensor in model.state_dict().items() if "lora_" in key}
    assert places == {key.removeprefix("unet."): tensor.shape for key, tensor in tensors.items()}


def spell(places: list[tuple[str, int]]) -> set[str]:
    """The kohya names of attentions, from the place and the number of transformer blocks of each."""
    projections = [f"attn{number}_{name}" for number, name in product((1, 2), ("to_q", "to_k", "to_v", "to_out_0"))]
    return {
        f"lora_unet_{place}_transformer_blocks_{block}_{name}" for place, depth in places for block in range(depth) for name in projections
    }


SGM = [*((f"input_blocks_{i}_1", 2) for i in (4, 5)), *((f"input_blocks_{i}_1", 10) for i in (7, 8)), ("middle_block_1", 10)]
SGM += [*((f"output_blocks_{i}_1", 10) for i in (0, 1, 2)), *((f"output_blocks_{i}_1", 2) for i in (3, 4, 5))]
SD15 = [(f"down_blocks_{i}_attentions_{j}", 1) for i, j in product((0, 1, 2), (0, 1))] + [("mid_block_attentions_0", 1)]
SD15 += [(f"up_blocks_{i}_attentions_{j}", 1) for i, j in product((1, 2, 3), (0, 1, 2))]
TABLES = {"sdxl": spell(SGM), "sd15": spell(SD15)}
"""Where ComfyUI, A1111, Forge and InvokeAI look for the attentions of each model, by their own block numbers."""


def test_kohya_names_are_those_of_the_tools_tables(full_size):
    base, matrices, layers = full_size
    if base.family not in TABLES:
        # InvokeAI knows a FLUX file by these two
        assert {"single_transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_q_proj"} <= matrices.keys()
        return
    names = name_layers(matrices, base.family, 2)
    assert len(names) == layers
    assert names.keys() == TABLES[base.family]
    tensors = lay_out_for_kohya(matrices, base.family, 2)
    assert {key.partition(".")[0] for key in tensors} == TABLES[base.family]
    assert sum(key.endswith(".alpha") for key in tensors) == layers


@pytest.mark.parametrize("full_size", ["sdxl"], indirect=True)  # SGM names are SDXL's alone
def test_diffusers_own_kohya_reader_finds_all_layers_of_a_full_size_file(full_size):
    base, matrices, layers = full_size
    tensors = lay_out_for_kohya(matrices, "sdxl", 2)
    found = StableDiffusionXLPipeline.lora_state_dict(tensors, unet_config=base.denoiser.config)[0]
    assert len(found) == 2 * layers
    assert {strip_prefixes(re.sub(r"_lora\.(down|up)\.weight$", "", key)) for key in found} == matrices.keys()


def test_headers_say_what_tools_look_for():
    base = MAKERS["sdxl"](torch.float32)
    adapter = make_adapter(base)
    ours, kohya = (read_header(encode(adapter, make_release(), "float32")) for encode in ENCODERS.values())
    assert "lora_adapter_metadata" in ours
    assert "lora_adapter_metadata" not in kohya
    for header in (ours, kohya):
        assert header["ss_base_model_version"].startswith("sdxl_")  # Forge hides the file else
        assert (header["ss_network_dim"], header["ss_network_alpha"], header["ss_v2"]) == ("4", "4", "False")
        assert json.loads(header["ss_tag_frequency"]) == {"fox": {"in ink": 1, "sbu": 1}}
        assert header["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
        assert header["modelspec.date"] == "2026-01-02T03:04:05Z"
        assert (header["modelspec.license"], header["modelspec.trigger_phrase"]) == ("CC0-1.0", "in ink")
        assert header["pairlora.recommended_strength"] == "2.5"
        assert all(isinstance(value, str) for value in header.values())
    assert encode_for_kohya(adapter, make_release(), "float16") == encode_for_kohya(adapter, make_release(), "float16")


@pytest.mark.parametrize(("precision", "limit"), [(torch.float32, 1e-7), (torch.float16, 1e-4)])
def test_rounding_leaves_content_and_style_orthogonal(precision, limit: float):
    """At SDXL's widths and rank: what the published files hold."""
    basis = Basis.draw({640, 1280, 2048}, 64, 64, TRAIN.basis_seed)
    b = torch.zeros(1, 64)
    content, style = (
        StoredAdapter({str(width): (a, b) for width, a in frozen.items()}, {}, "unet") for frozen in (basis.content, basis.style)
    )
    assert measure_overlap(style, content, precision) < limit
