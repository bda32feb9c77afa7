"""What was accepted lands in a release folder as it was trained, with a card that the hub reads; nothing else does."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from staged_run import Staged, draw_matrices, stage_night
from typer.testing import CliRunner

from pairlora.adapters.files import decode_adapter
from pairlora.adapters.routing import Role
from pairlora.cli.main import app
from pairlora.errors import CorruptObjectError
from pairlora.records import AdapterRecord
from pairlora.review.decisions import ReviewDesk
from pairlora.review.publishing import publish_run


@pytest.fixture
def staged(tmp_path: Path) -> Staged:
    run = stage_night(tmp_path)
    job = run.jobs[0]
    said = {"licence": "Studio <b>internal</b>", "consent": "by letter", "style_template": "{prompt}, in *ink*"}
    pair = job.pair.model_copy(update=said)
    run.jobs[0] = job.model_copy(update={"pair": pair})
    run.write()
    return run


def decide(staged: Staged, pair_id: str, verdict: str, **facts) -> None:
    ReviewDesk(staged.store).decide(pair_id, verdict, reviewer="anna", **facts)  # pyright: ignore[reportArgumentType]


def read_front_matter(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_accepted_adapters_alone_are_published(staged: Staged, tmp_path: Path):
    decide(staged, "dog", "accept")
    decide(staged, "cat", "accept")
    decide(staged, "cat", "reject")
    published = publish_run(staged.store, None, str(tmp_path / "release"))
    assert [one.pair_id for one in published] == ["dog"]
    assert sorted(path.name for path in (tmp_path / "release").iterdir() if not path.name.startswith(".")) == ["dog"]
    folder = Path(published[0].url)
    beside = [f"{stem}.{kind}" for stem in ("style", "style.kohya") for kind in ("json", "png", "safetensors")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["README.md", *beside])
    matrices, facts = decode_adapter((folder / "style.safetensors").read_bytes())
    assert (facts["role"], facts["licence"], facts["consent"]) == ("style", "Studio <b>internal</b>", "by letter")
    for layer, (a, b) in draw_matrices()[Role.STYLE].items():
        assert torch.equal(matrices[layer][0], a)
        assert torch.equal(matrices[layer][1], b)
    assert (folder / "style.png").read_bytes().startswith(b"\x89PNG")


def test_the_card_says_what_the_hub_and_a_reader_need(staged: Staged, tmp_path: Path):
    decide(staged, "dog", "accept", strength=1.25, comment="[click](javascript:x)")
    publish_run(staged.store, None, str(tmp_path / "release"))
    card = (tmp_path / "release" / "dog" / "README.md").read_text()
    front = read_front_matter(card)
    assert front["library_name"] == "diffusers"
    assert (front["license"], front["license_name"]) == ("other", "Studio <b>internal</b>")
    assert front["instance_prompt"] == "a dog, in *ink*"
    assert front["widget"][0]["output"] == {"url": "style.png"}
    body = card.split("---\n", 2)[2]
    assert "style guidance: strength 1.25" in body
    assert "| direction | 0." in body
    assert "Accepted by anna" in body
    assert "Consent: by letter" in body
    assert "<b>" not in body
    assert "[click](" not in body
    assert r"in \*ink\*" in body


def test_known_licences_and_bases_are_named_as_the_hub_names_them(staged: Staged, tmp_path: Path):
    fingerprint = staged.jobs[1].fingerprint
    record = staged.store.read_marker("adapter", fingerprint, AdapterRecord)
    assert record is not None
    staged.store.drop_marker("adapter", fingerprint)
    staged.store.mark_done("adapter", fingerprint, record.model_copy(update={"base": "sdxl"}))
    decide(staged, "cat", "accept")
    publish_run(staged.store, None, str(tmp_path / "release"))
    front = read_front_matter((tmp_path / "release" / "cat" / "README.md").read_text())
    assert front["license"] == "cc0-1.0"
    assert "license_name" not in front
    assert (front["base_model"], front["base_model_relation"]) == ("stabilityai/stable-diffusion-xl-base-1.0", "adapter")


def test_tools_get_trigger_words_and_a_weight_only_where_one_was_measured(staged: Staged, tmp_path: Path):
    decide(staged, "dog", "accept")
    publish_run(staged.store, None, str(tmp_path / "first"))
    facts = json.loads((tmp_path / "first" / "dog" / "style.json").read_text())
    assert facts == {"activation text": "in *ink*", "notes": "style guidance: strength 2.5; plain LoRA: no weight was measured"}
    for prompt in staged.jobs[0].pair.prompts:
        staged.add_image(staged.jobs[0], prompt, 0, 0.0, lora_weight=0.8)
    staged.write()
    publish_run(staged.store, None, str(tmp_path / "second"))
    assert json.loads((tmp_path / "second" / "dog" / "style.json").read_text())["preferred weight"] == 0.8


def test_a_damaged_adapter_is_not_published(staged: Staged, tmp_path: Path):
    decide(staged, "dog", "accept")
    for path in Path(staged.store.url).glob(f"adapters/{staged.jobs[0].fingerprint}/*/style.b.safetensors"):
        path.write_bytes(b"other")
    with pytest.raises(CorruptObjectError):
        publish_run(staged.store, None, str(tmp_path / "release"))
    assert not list((tmp_path / "release").rglob("style.safetensors"))


def test_the_command_says_what_it_published(staged: Staged, tmp_path: Path):
    def call():
        return CliRunner().invoke(app, ["publish", staged.store.url, "--to", str(tmp_path / "release")], catch_exceptions=False)

    assert "nobody has accepted" in call().output
    decide(staged, "dog", "accept")
    assert "1 adapters published" in call().output
