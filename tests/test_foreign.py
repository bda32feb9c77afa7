"""LoRA files of other trainers: each is read as its own tools read it, told for what it is, and drawn with; what lies is named."""

import json
import re
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers.utils import convert_state_dict_to_kohya
from made_adapters import make_adapter, make_release
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save, save_file
from test_loaders import predict, predict_ours
from test_safety import HOSTILE
from tiny_base import make_base
from tiny_bases import MAKERS
from typer.testing import CliRunner

from pairlora.adapters.foreign import map_to_base, read_lora
from pairlora.cli.main import app
from pairlora.errors import AdapterFileError
from pairlora.release.files import encode_for_diffusers, encode_for_kohya
from pairlora.release.inspection import inspect_file
from pairlora.store.run_store import RunStore
from pairlora.store.urls import connect

SETTINGS: dict[str, Any] = {"r": 3, "lora_alpha": 6, "target_modules": ["to_q", "to_v", "ff.net.2", "proj_out"], "init_lora_weights": False}
"""A LoRA as trainers make them: alpha is not the rank, and not attentions alone."""
ORIGINS = ("diffusers' trainer", "kohya", "PEFT folder")


def write_foreign(origin: str, base, folder: Path) -> Path:
    """A LoRA with random factors in the base's denoiser, written by the tool itself."""
    torch.manual_seed(3)
    if origin == "PEFT folder":
        model = peft.get_peft_model(base.denoiser, peft.LoraConfig(**SETTINGS))
        model.save_pretrained(str(folder / "lora"))
        return folder / "lora"
    base.denoiser.add_adapter(peft.LoraConfig(**SETTINGS))
    layers = get_peft_model_state_dict(base.denoiser)
    if origin == "diffusers' trainer":
        settings = {"unet_lora_adapter_metadata": base.denoiser.peft_config["default"].to_dict()}
        base.pipeline.save_lora_weights(folder, unet_lora_layers=layers, **settings)
        return folder / "pytorch_lora_weights.safetensors"
    kohya = convert_state_dict_to_kohya({f"unet.{key}": tensor for key, tensor in layers.items()})
    ranks = {key.partition(".")[0] for key in kohya}
    save_file(
        kohya | {f"{layer}.alpha": torch.tensor(6.0) for layer in ranks}, folder / "kohya.safetensors", {"ss_base_model_version": "sdxl_"}
    )
    return folder / "kohya.safetensors"


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_foreign_lora_predicts_what_its_own_tools_predict(origin: str, tmp_path: Path):
    theirs, ours = make_base(torch.float32), make_base(torch.float32)
    path = write_foreign(origin, theirs, tmp_path)
    found = map_to_base(read_lora(path), ours.denoiser, ours.family)
    assert found.left_out == ()
    plain, expected = predict(ours), predict(theirs)
    assert (predict_ours(ours, found.matrices) - expected).abs().max() < 1e-4
    assert (expected - plain).abs().max() > 0.05


@pytest.mark.parametrize("settings", [{"use_rslora": True}, {"lora_alpha": 0}, {"alpha_pattern": {"to_v": 1}}])
def test_the_scale_is_what_peft_makes_of_its_settings(settings: dict[str, Any], tmp_path: Path):
    theirs, ours = make_base(torch.float32), make_base(torch.float32)
    torch.manual_seed(3)
    peft.get_peft_model(theirs.denoiser, peft.LoraConfig(**SETTINGS | settings)).save_pretrained(str(tmp_path))
    found = map_to_base(read_lora(tmp_path), ours.denoiser, ours.family)
    assert (predict_ours(ours, found.matrices) - predict(theirs)).abs().max() < 1e-4


def test_a_folder_and_a_file_are_read_by_url_as_by_path(store: RunStore, tmp_path: Path):
    folder, there = write_foreign("PEFT folder", make_base(torch.float32), tmp_path), f"{store.url}/loras/ink"
    bucket, path = connect(there)
    bucket.makedirs(path, exist_ok=True)
    for file in folder.iterdir():
        bucket.pipe_file(f"{path}/{file.name}", file.read_bytes())
    identities = {read_lora(place).identity for place in (folder, there, f"{there}/adapter_model.safetensors")}
    assert len(identities) == 1
    bucket.rm(f"{path}/adapter_config.json")
    assert read_lora(f"{there}/adapter_model.safetensors").identity not in identities
    with pytest.raises(AdapterFileError, match=re.escape(f"{there}/gone.safetensors cannot be read")):
        read_lora(f"{there}/gone.safetensors")


@pytest.mark.parametrize(("family", "encode"), [("flux", encode_for_diffusers), ("sdxl", encode_for_kohya), ("sd15", encode_for_kohya)])
def test_our_own_files_are_read_back_in_every_layout(family: str, encode, tmp_path: Path):
    base = MAKERS[family](torch.float32)
    adapter = make_adapter(base)
    (tmp_path / "style.safetensors").write_bytes(encode(adapter, make_release(), "float32"))
    found = map_to_base(read_lora(tmp_path / "style.safetensors"), base.denoiser, family)
    assert found.matrices.keys() == adapter.matrices.keys()
    for name, (a, b) in adapter.matrices.items():
        assert torch.equal(found.matrices[name][0], a)
        assert torch.equal(found.matrices[name][1], b)


def test_what_guidance_cannot_use_is_named(tmp_path: Path):
    base = make_base(torch.float32)
    path = write_foreign("kohya", base, tmp_path)
    factors = {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(2, 12)}
    factors |= {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.zeros(24, 2), "lora_unet_x.dora_scale": torch.zeros(1)}
    from safetensors.torch import load_file

    save_file(load_file(path) | factors, path)
    assert map_to_base(read_lora(path), make_base(torch.float32).denoiser, "sdxl").left_out == (
        "lora_unet_x.dora_scale",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
    )


def test_a_lora_of_another_base_is_refused(tmp_path: Path):
    path = write_foreign("diffusers' trainer", make_base(torch.float32), tmp_path)
    with pytest.raises(AdapterFileError, match="none of the file's"):
        map_to_base(read_lora(path), MAKERS["flux"](torch.float32).denoiser, "flux")
    other = MAKERS["sdxl"](torch.float32)
    other.denoiser.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1").to_q = torch.nn.Linear(8, 8)
    with pytest.raises(AdapterFileError, match="wide, the base's 8 to 8; it is for another base"):
        map_to_base(read_lora(path), other.denoiser, "sdxl")


# What a file says of itself


def test_inspect_knows_files_of_four_origins(tmp_path: Path):
    base = make_base(torch.float32)
    paths = [tmp_path / "style.safetensors"]
    paths[0].write_bytes(encode_for_kohya(make_adapter(base), make_release(), "float32"))
    for number, origin in enumerate(ORIGINS):
        (tmp_path / str(number)).mkdir()
        paths.append(write_foreign(origin, make_base(torch.float32), tmp_path / str(number)))
    shown = CliRunner().invoke(app, ["inspect", "--json", *map(str, paths)], catch_exceptions=False)
    ours, diffusers, kohya, folder = json.loads(shown.output)
    assert [one["origin"] for one in (ours, diffusers, kohya, folder)] == [
        "pairlora, kohya keys",
        "a trainer that does not say its name, PEFT keys",
        "a trainer that does not say its name, kohya keys",
        "a folder of PEFT",
    ]
    assert (ours["family"], ours["base"], ours["role"], ours["ranks"]) == ("sdxl", "tiny", "style", {"4": ours["layers"]})
    assert ours["orthogonality"] < 1e-6 < diffusers["orthogonality"]
    assert (ours["trigger_words"], ours["template"], ours["recommended_strength"]) == (["in ink", "sbu"], "{prompt}, in ink", 2.5)
    assert (ours["header_hash_matches"], diffusers["header_hash_matches"]) == (True, None)
    assert [one["scales"] for one in (ours, diffusers, kohya, folder)] == [[1.0], [2.0], [2.0], [2.0]]
    assert kohya["family"] == "sdxl"
    assert diffusers["layers"] == kohya["layers"] == folder["layers"] == 42
    words = CliRunner().invoke(app, ["inspect", str(paths[0])], catch_exceptions=False).output
    assert "trigger words: in ink, sbu" in words
    assert "as the header states" in words


def test_a_hash_that_is_not_the_tensors_is_told(tmp_path: Path):
    data = encode_for_diffusers(make_adapter(make_base(torch.float32)), make_release(), "float32")
    (tmp_path / "changed.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert inspect_file(tmp_path / "changed.safetensors").header_hash_matches is False


def refuse(path: Path) -> str:
    shown = CliRunner().invoke(app, ["inspect", str(path)], catch_exceptions=False)
    assert shown.exit_code == 1
    assert shown.stderr.startswith("AdapterFileError")
    return " ".join(shown.stderr.split())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_lies_is_an_error_with_a_name(name: str, tmp_path: Path):
    (tmp_path / "style.safetensors").write_bytes(HOSTILE[name])
    refuse(tmp_path / "style.safetensors")


def test_a_truncated_file_and_a_renamed_pickle_are_errors_with_names(tmp_path: Path):
    data = encode_for_diffusers(make_adapter(make_base(torch.float32)), make_release(), "float32")
    path = tmp_path / "style.safetensors"
    for length in (0, 5, 8, 100, len(data) - 1):
        path.write_bytes(data[:length])
        assert "not a safetensors file" in refuse(path)
    torch.save({"lora": torch.zeros(1)}, path)
    assert "is a pickle, whatever its name" in refuse(path)
    assert "cannot be read" in refuse(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    ("tensors", "header", "message"),
    [
        ({"x.weight": torch.zeros(2)}, {}, "holds no LoRA"),
        ({"x.lora_A.weight": torch.zeros(2, 4)}, {}, "has a first factor and no second"),
        ({"x.lora_A.weight": torch.zeros(2, 4), "x.lora_B.weight": torch.zeros(4, 3)}, {}, "have no product"),
        ({"x.lora_A.weight": torch.zeros(2), "x.lora_B.weight": torch.zeros(4, 2)}, {}, "have no product"),
        (
            {"x.lora_down.weight": torch.zeros(2, 4), "x.lora_up.weight": torch.zeros(4, 2), "x.alpha": torch.tensor(float("nan"))},
            {},
            "alpha is nan",
        ),
        (
            {"x.lora_down.weight": torch.zeros(2, 4), "x.lora_up.weight": torch.zeros(4, 2), "x.alpha": torch.zeros(3)},
            {},
            "3 values instead of one",
        ),
        ({"x.lora_A.weight": torch.zeros(2, 4), "x.lora_B.weight": torch.zeros(4, 2)}, {"lora_adapter_metadata": "["}, "no JSON object"),
        (
            {"x.lora_A.weight": torch.zeros(2, 4), "x.lora_B.weight": torch.zeros(4, 2)},
            {"lora_adapter_metadata": '{"unet.lora_alpha": "a"}'},
            "lora_alpha is 'a'",
        ),
    ],
)
def test_factors_that_make_no_lora_are_errors_with_names(tensors, header, message: str, tmp_path: Path):
    (tmp_path / "style.safetensors").write_bytes(save(tensors, header))
    assert message in refuse(tmp_path / "style.safetensors")


def test_a_folder_that_is_no_adapter_is_an_error_with_a_name(tmp_path: Path):
    assert "is no adapter's folder" in refuse(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    assert "holds no settings" in refuse(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x02")
    assert "cannot be read" in refuse(tmp_path)
