"""A drawn picture says how it was drawn, to tools that split A1111's line and to scripts that read JSON."""

import json
import re
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from styled_base import random_styles
from tiny_base import SAMPLE, make_base

from pairlora.config import RunConfig
from pairlora.execution.drawing import Drawing
from pairlora.execution.progress import ignore
from pairlora.provenance import Origin, quote_setting, write_parameters
from pairlora.records import ImageRecord, PlannedImage
from pairlora.store.run_store import RunStore

PROMPT = "a cat: red, big\nand old"
SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""How A1111 documents its line of settings: name, colon, a value or a quoted one, comma."""


def read_parameters(text: str) -> tuple[str, dict[str, str]]:
    """Prompt and settings, as a tool of A1111's kind splits them."""
    *prompt, line = text.strip().split("\n")
    found = {name: json.loads(value) if value.startswith('"') else value for name, value in SETTING.findall(line)}
    return "\n".join(prompt), found


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> dict[str, dict[str, str]]:
    """The text chunks of an unstyled picture, a styled one and one of a plain LoRA, by name."""
    folder: Path = tmp_path_factory.mktemp("drawn")
    base = make_base(torch.float32)
    settings = {"manifest": "m.csv", "output": {"url": str(folder)}, "base": {"name": "tiny"}, "sample": SAMPLE.model_dump()}
    drawing = Drawing(RunConfig.model_validate(settings), base, RunStore(str(folder)), ignore)
    common = {"prompt": PROMPT, "style_prompt": f"{PROMPT}, in ünk", "seed": 7}
    planned = {
        "unstyled": PlannedImage(**common, strength=0.0),
        "styled": PlannedImage(**common, strength=1.5),
        "plain": PlannedImage(**common, strength=0.0, lora_weight=0.8),
    }
    with random_styles(base, 1) as adapters:
        drawing.draw_images(adapters, "f" * 64, {name: planned[name] for name in ("unstyled", "styled")}, "shard")
        drawing.draw_plain_images(adapters, "f" * 64, {"plain": planned["plain"]}, "shard")
    records = drawing.find_images(planned)
    read = {name: drawing.store.read_payload(one.url, one.sha256, one.bytes) for name, one in records.items()}
    return {name: dict(Image.open(BytesIO(data), formats=["PNG"]).text) for name, data in read.items()}  # pyright: ignore[reportAttributeAccessIssue]


def test_tools_find_prompt_and_settings(drawn):
    prompt, settings = read_parameters(drawn["styled"]["parameters"])
    assert prompt == "a cat: red, big and old, in ünk"
    expected = {"Steps": "4", "Sampler": "DDIM", "CFG scale": "3", "Seed": "7", "Size": "32x32", "Model": "tiny"}
    assert {name: settings[name] for name in expected} == expected
    assert (settings["Style strength"], settings["Adapter"]) == ("1.5", "f" * 12)
    assert read_parameters(drawn["plain"]["parameters"])[1]["LoRA weight"] == "0.8"
    prompt, settings = read_parameters(drawn["unstyled"]["parameters"])
    assert prompt == "a cat: red, big and old"
    assert not settings.keys() & {"Adapter", "Style strength", "LoRA weight"}


def test_scripts_find_all_that_decides_the_picture(drawn):
    facts = json.loads(drawn["styled"]["pairlora"])
    expected = {"prompt": PROMPT, "style_prompt": f"{PROMPT}, in ünk", "seed": 7, "strength": 1.5, "adapter": "f" * 64}
    assert {name: facts[name] for name in expected} == expected
    assert (facts["base"], facts["base_digest"], facts["scheduler"]) == ("tiny", "tiny", "DDIMScheduler")
    assert json.loads(drawn["unstyled"]["pairlora"])["adapter"] == ""


@pytest.mark.parametrize("name", ["models/a, b.safetensors", 'with "quotes"', "C:\\models\\xl", "plain"])
def test_a_model_of_any_name_leaves_the_line_whole(name: str):
    record = ImageRecord.model_validate(
        {"image_id": "i", "fingerprint": "", "prompt": "a cat", "style_prompt": "", "seed": 0, "strength": 0.0}
        | {"guidance_scale": 5.0, "profile": "own", "url": "", "sha256": "", "bytes": 0}
    )
    origin = Origin(base=name, base_digest="d", scheduler="EulerDiscreteScheduler", steps=2, size=64)
    settings = read_parameters(write_parameters(record, origin))[1]
    assert settings["Model"] == name
    assert settings["Version"].startswith("pairlora ")
    assert quote_setting("plain") == "plain"
