"""Pictures from adapters that are there: from a store, from a file, blended; each as the library draws it, and a sheet of all."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_adapters import make_adapter, make_matrices, make_release
from PIL import Image
from staged_run import stage_night
from test_foreign import write_foreign
from tiny_base import SAMPLE, make_base, make_pipeline
from typer.testing import CliRunner

import pairlora
from pairlora.adapters.foreign import map_to_base, read_lora
from pairlora.cli.main import app
from pairlora.errors import AdapterFileError, ConfigError
from pairlora.generation import generate, open_style, split_share
from pairlora.release.files import encode_for_kohya

PROMPTS = ["a cat", "a dog"]


def read_pixels(url: str) -> np.ndarray:
    with Image.open(url) as picture:
        return np.asarray(picture)


def test_two_adapters_of_different_origin_are_blended_as_the_library_blends_them(tmp_path: Path):
    base = make_base(torch.float32)
    ours = tmp_path / "fox.safetensors"
    ours.write_bytes(encode_for_kohya(make_adapter(base), make_release(), "float32"))
    theirs = write_foreign("PEFT folder", make_base(torch.float32), tmp_path)
    with pytest.raises(AdapterFileError, match="does not say how prompts read in its style; give --template"):
        open_style(str(theirs), base)
    styles = [open_style(f"{ours}@0.5", base), open_style(f"{theirs}@-0.25", base, template="{prompt} as a print")]
    drawn = generate(base, styles, PROMPTS, strengths=[0.0, 2.0], seeds=[3], sample=SAMPLE, to=str(tmp_path / "out"))
    assert [(one.prompt, one.strength) for one in drawn] == [(prompt, strength) for prompt in PROMPTS for strength in (0.0, 2.0)]
    ink = pairlora.Style(make_matrices(base), "{prompt}, in ink")
    print_ = pairlora.Style(map_to_base(read_lora(theirs), base.denoiser, "sdxl").matrices, "{prompt} as a print")
    settings = {name: getattr(SAMPLE, name) for name in ("steps", "guidance_scale", "size")}
    for prompt, plain, styled in zip(PROMPTS, drawn[::2], drawn[1::2], strict=True):
        (expected,) = pairlora.draw(base, prompt, {ink: 1.0, print_: -0.5}, seeds=[3], **settings)
        (unstyled,) = pairlora.draw(base, prompt, seeds=[3], **settings)
        assert np.abs(read_pixels(styled.url).astype(int) - np.asarray(expected)).max() <= 1
        assert np.abs(read_pixels(plain.url).astype(int) - np.asarray(unstyled)).max() <= 1
        assert not np.array_equal(read_pixels(styled.url), read_pixels(plain.url))
    assert read_pixels(str(tmp_path / "out" / "sheet.png")).shape == (2 * (32 + 24), 64, 3)
    with Image.open(drawn[1].url) as picture:
        assert [one["strength"] for one in json.loads(picture.info["pairlora"])["styles"]] == [1.0, -0.5]
        assert picture.info["parameters"].startswith("a cat, in ink")


def test_the_command_draws_and_lists_what_it_drew(tmp_path: Path):
    make_pipeline(torch.float32).save_pretrained(tmp_path / "base")
    (tmp_path / "fox.safetensors").write_bytes(encode_for_kohya(make_adapter(make_base(torch.float32)), make_release(), "float32"))
    call = ["generate", str(tmp_path / "fox.safetensors"), "--base", str(tmp_path / "base"), "--prompt", "a cat", "--strength", "2"]
    call += ["--seed", "0", "--seed", "1", "--set", "steps=2", "--set", "size=32", "--to", str(tmp_path / "out"), "--json"]
    shown = CliRunner().invoke(app, call, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    listed = json.loads(shown.stdout)
    assert [one["seed"] for one in listed] == [0, 1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_file()) == [
        "000-seed-0-strength-2.png",
        "000-seed-1-strength-2.png",
        "images.json",
        "sheet.png",
    ]


def test_an_adapter_of_a_store_wants_the_base_that_it_was_trained_on(tmp_path: Path):
    staged = stage_night(tmp_path, pairs=("dog",))
    staged.write()
    base = make_base(torch.float32)
    for name in ("dog", staged.jobs[0].fingerprint[:10]):
        with pytest.raises(ConfigError, match="was trained on base 'embedded'"):
            open_style(name, base, staged.store)
    base.digest = "d"
    found = open_style(f"{staged.store.url}/adapters/{staged.jobs[0].fingerprint}@0.5", base)
    assert (found.name, found.share, found.style.template) == ("dog", 0.5, "{prompt} in ink")
    with pytest.raises(ConfigError, match="names no adapter of"):
        open_style("owl", base, staged.store)
    with pytest.raises(ConfigError, match="there is no such file"):
        open_style("owl", base)


def test_a_share_is_a_number_after_the_last_at():
    assert split_share("a@b.safetensors@0.5") == ("a@b.safetensors", 0.5)
    assert split_share("a@b.safetensors") == ("a@b.safetensors", 1.0)
