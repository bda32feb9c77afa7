"""The command line: help that teaches, errors that name the remedy, and exit codes that a script can trust."""

import json

import pytest
from tiny_base import make_picture
from typer.testing import CliRunner

from pairlora.cli.main import app, build_run, parse_value
from pairlora.errors import ConfigError


@pytest.fixture
def manifest(tmp_path):
    for name in ("a", "b"):
        make_picture(ord(name), 64).save(tmp_path / f"{name}.png")
    path = tmp_path / "manifest.csv"
    path.write_text("pair_id,content,style,content_prompt,style_template\nfox,a.png,b.png,a fox,{prompt} in ink\n")
    return path


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.parametrize("command", ["run", "rescore", "validate", "plan", "report", "doctor", "stylize"])
def test_every_command_explains_itself(command):
    shown = call(command, "--help")
    assert shown.exit_code == 0
    assert "Usage" in shown.output


def test_a_valid_manifest_is_counted(manifest):
    shown = call("validate", manifest)
    assert (shown.exit_code, "1 pairs" in shown.output) == (0, True)


def test_a_bad_manifest_ends_with_2_and_says_row_field_and_remedy(manifest):
    manifest.write_text(manifest.read_text() + "../fox,a.png,,a fox,no placeholder\n")
    shown = call("validate", manifest)
    assert shown.exit_code == 2
    message = shown.output + shown.stderr
    assert all(word in message for word in ("3 problems", "row 2", "style", "style_template", "pair_id", "{prompt}"))


def test_a_wrong_setting_names_its_field(manifest):
    shown = call("plan", manifest, "-o", manifest.parent / "out", "--set", "train.rank=8")
    assert shown.exit_code == 2
    assert "train.rank" in shown.output + shown.stderr


def test_doctor_looks_at_an_output_that_cannot_be_written(manifest):
    (manifest.parent / "file").write_text("in the way")
    shown = call("doctor", "-o", manifest.parent / "file" / "out")
    assert "cannot" in shown.output
    assert shown.exit_code == 1


@pytest.mark.parametrize("text", ["train: null", "base: sdxl", "- a list", "base: null"])
def test_a_config_file_of_the_wrong_shape_is_a_config_error(tmp_path, text):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError):
        build_run(tmp_path / "run.yaml", manifest="m.csv", output="o")


def test_a_run_outside_a_checkout_says_what_to_do(manifest, monkeypatch):
    monkeypatch.chdir(manifest.parent)
    monkeypatch.delenv("PAIRLORA_HOME", raising=False)
    shown = call("run", manifest, "-o", manifest.parent / "out")
    assert shown.exit_code == 2
    assert "PAIRLORA_HOME" in shown.output + shown.stderr


def test_a_plan_says_what_is_left_and_writes_nothing(manifest):
    out = manifest.parent / "out"
    shown = call("plan", manifest, "-o", out, "--json", "--devices", "cpu:2")
    estimate = json.loads(shown.output)["estimate"]
    assert (estimate["pairs"], estimate["adapters_left"], estimate["adapters_reused"]) == (1, 1, 0)
    # one prompt, two seeds, four strengths, the unstyled picture and the plain LoRA
    assert estimate["images_left"] == 12
    assert not out.exists()


def test_a_report_of_an_empty_store_says_so(tmp_path):
    shown = call("report", "-o", tmp_path)
    assert shown.exit_code == 2
    assert "holds no run" in shown.output + shown.stderr


@pytest.mark.parametrize("suffix", ["toml", "yaml"])
def test_flags_stand_over_the_file_and_the_file_over_the_preset(tmp_path, suffix):
    text = {"toml": "[train]\nsteps = 77\nstyle_rank = 8\n", "yaml": "train: {steps: 77, style_rank: 8}\n"}[suffix]
    (tmp_path / f"run.{suffix}").write_text(text)
    run = build_run(tmp_path / f"run.{suffix}", manifest="m.csv", output="o", settings=["train.steps=99"])
    assert (run.train.steps, run.train.style_rank, run.train.content_rank) == (99, 8, 16)


def test_a_config_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "run.toml").write_text("[train\n")
    with pytest.raises(ConfigError, match=r"run\.toml"):
        build_run(tmp_path / "run.toml", manifest="m.csv", output="o")


@pytest.mark.parametrize(("text", "value"), [("3", 3), ("[0, 1]", [0, 1]), ("true", True), ("DDIMScheduler", "DDIMScheduler")])
def test_settings_are_json_or_text(text, value):
    assert parse_value(text) == value
