"""The whole run through the command line: manifest in, report out, on a folder and on S3, done once."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
PAIRLORA = Path(sys.executable).with_name("pairlora")
QUICK = (
    "train.steps=6",
    "train.content_steps=2",
    "train.draws=2",
    "sample.steps=4",
    "sample.relative_strengths=[0,1]",
    "execution.pack_size=1",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def command(manifest, output, *arguments):
    settings = [part for setting in QUICK for part in ("--set", setting)]
    return [PAIRLORA, "run", manifest, "-o", output, "--base", "embedded", "--devices", "cpu:2", *settings, *arguments]


def run(environment, manifest, output, *arguments, code=0) -> Any:
    done = subprocess.run(
        list(map(str, command(manifest, output, "--json", *arguments))), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A Prefect server and home of the tests' own, away from any server that is configured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    private = kept | {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "OMP_NUM_THREADS": "1",
    }
    server = [PAIRLORA.with_name("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with subprocess.Popen(server, env=private, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            url = f"http://127.0.0.1:{port}/api"
            await_server(f"{url}/health", process)
            yield private | {"PREFECT_API_URL": url}
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def await_server(url, process, seconds=180):
    """Wait until the server answers; an error where it ends or does not answer in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"the Prefect server does not answer at {url}")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Two good pairs, one with a truncated picture, one with a rank that is too large, and a row that is wrong."""
    folder = tmp_path_factory.mktemp("manifest")
    example = ROOT / "examples" / "fluent"
    rows = [json.loads(line) for line in (example / "two-pairs.jsonl").read_text().splitlines()]
    for row in rows:
        for name in {row["content"], row["style"], *row["truth"].values()}:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes((example / name).read_bytes())
        row["test_prompts"] = row["test_prompts"][:2]
        row["truth"] = {prompt: row["truth"][prompt] for prompt in row["test_prompts"]}
    whole = (folder / rows[0]["style"]).read_bytes()
    (folder / "pictures" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    rows += [
        rows[0] | {"pair_id": "truncated", "style": "pictures/truncated.png"},
        rows[0] | {"pair_id": "wide", "overrides": {"style_rank": 90}},
        rows[0] | {"pair_id": "../escape"},
    ]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def first(environment, manifest, tmp_path_factory):
    output = tmp_path_factory.mktemp("store")
    return output, run(environment, manifest, output, "--skip-bad-rows", "--set", "execution.allowed_failures=0.6")


def read_table(output, summary, name, **options):
    return pd.read_parquet(f"{output}/runs/{summary['run_id']}/report/{name}.parquet", **options)


def test_good_pairs_are_done_and_bad_ones_say_why(first):
    output, summary = first
    assert summary["counts"] == {"done": 2, "failed": 2, "invalid": 1} | {
        status: count for status, count in summary["counts"].items() if not count
    }
    errors = {outcome["pair_id"]: outcome["error_class"] for outcome in summary["failed"]}
    assert errors["truncated"] == "CorruptPictureError"
    assert errors["wide"] == "RankError"
    assert Path(summary["report_url"]).is_file()
    images = read_table(output, summary, "images", columns=["pair_id", "strength"])
    assert len(images) == 2 * 2 * 2 * (2 + 1)  # pairs, prompts, seeds; two strengths and the plain LoRA


def test_the_same_manifest_again_trains_and_draws_nothing(first, environment, manifest):
    output, _ = first
    again = run(environment, manifest, output, "--skip-bad-rows", "--set", "execution.allowed_failures=0.6")
    assert (again["trained"], again["images_drawn"]) == (0, 0)
    assert again["counts"]["reused"] == 2


def test_a_manifest_that_is_done_starts_no_worker(first, environment, manifest):
    output, _ = first
    good = manifest.with_name("good.jsonl")
    good.write_text("\n".join(manifest.read_text().splitlines()[:2]))
    again = run(environment, good, output)
    assert {status: count for status, count in again["counts"].items() if count} == {"reused": 2}
    assert (again["trained"], again["images_drawn"], len(again["recommended_strengths"])) == (0, 0, 2)
    assert len(read_table(output, again, "attempts")) == 0
    assert len(read_table(output, again, "scores")) > 0


def test_prefect_shows_progress_summary_worst_pairs_failures_and_a_link(first, environment):
    _, summary = first
    found = httpx.post(f"{environment['PREFECT_API_URL']}/artifacts/filter", json={"limit": 200}, timeout=30).json()
    named = [one for one in found if summary["run_id"] in str(one["data"])]
    (of_flow,) = {one["flow_run_id"] for one in named}
    notes = {one["key"]: one for one in found if one["flow_run_id"] == of_flow}
    kinds = {"pairs-progress": "progress", "summary": "markdown", "worst-pairs": "table", "failures": "table", "report": "markdown"}
    assert {key: note["type"] for key, note in notes.items()} == kinds
    assert notes["pairs-progress"]["data"] == 100
    assert "data:image/png;base64," in notes["summary"]["data"]
    assert {row["pair_id"] for row in json.loads(notes["worst-pairs"]["data"])} == set(summary["verdicts"])
    assert {row["pair_id"] for row in json.loads(notes["failures"]["data"])} == {one["pair_id"] for one in summary["failed"]}
    assert all(len(json.dumps(note)) < 500_000 for note in notes.values())


def test_prefect_keeps_no_results(first, environment):
    assert not [path for path in Path(environment["PREFECT_HOME"]).glob("storage/**/*") if path.is_file()]


def test_rescore_draws_another_prompt_with_the_adapters_that_are_there(first, environment, tmp_path):
    original, summary = first
    output = shutil.copytree(original, tmp_path / "store")  # the first run's own store is compared with that of S3
    options = ["--run-id", summary["run_id"], "--prompt", "a flat icon of a rocket", "--set", "execution.allowed_failures=1"]
    done = subprocess.run([PAIRLORA, "rescore", output, *options, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["trained"] == 0
    images = read_table(output, again, "images", columns=["prompt"])
    assert images.prompt.tolist() == ["a flat icon of a rocket"] * (2 * 2 * 3)  # pairs, seeds; two strengths and the plain LoRA


def test_a_bad_row_refuses_the_manifest_before_anything_is_done(environment, manifest, tmp_path):
    message = run(environment, manifest, tmp_path / "store", code=2)
    assert "row 5" in message
    assert "pair_id" in message
    assert not list(tmp_path.glob("store/done/*"))


def test_an_output_that_cannot_be_written_ends_with_3(environment, manifest, tmp_path):
    (tmp_path / "file").write_text("in the way")
    message = run(environment, manifest, tmp_path / "file" / "store", "--skip-bad-rows", code=3)
    assert "StoreError" in message


def test_too_many_failures_fail_the_run_and_the_report_is_there(first, environment, manifest):
    output, _ = first
    message = run(environment, manifest, output, "--skip-bad-rows", code=5)
    assert "2 of 4 rows failed" in message


@pytest.mark.s3
def test_s3_holds_the_same_keys_counts_and_scores(first, environment, manifest, s3_url, s3_environment):
    output, summary = first
    other = run(environment | s3_environment, manifest, s3_url, "--skip-bad-rows", "--set", "execution.allowed_failures=0.6")
    assert other["counts"] == summary["counts"]
    bucket = fsspec.filesystem("s3")
    root = s3_url.removeprefix("s3://").rstrip("/")
    for kind in ("adapter", "image", "baseline", "score"):
        here = {path.name for path in Path(output).glob(f"done/{kind}/*/*.json")}
        assert here
        assert {key.rpartition("/")[2] for key in bucket.find(f"{root}/done/{kind}")} == here
    scores = [
        pd.read_parquet(source, **options).sort_values(["pair_id", "image_id", "metric"]).reset_index(drop=True)
        for source, options in (
            (f"{output}/runs/{summary['run_id']}/report/scores.parquet", {}),
            (f"{s3_url}/runs/{other['run_id']}/report/scores.parquet", {"filesystem": bucket}),
        )
    ]
    assert (scores[0][["pair_id", "image_id", "metric"]] == scores[1][["pair_id", "image_id", "metric"]]).to_numpy().all()
    assert (scores[0].value - scores[1].value).abs().max() < 1e-3
    secret = s3_environment["AWS_SECRET_ACCESS_KEY"].encode()
    kept = {key: bucket.cat_file(key) for key in bucket.find(root)}
    kept |= {str(path): path.read_bytes() for path in Path(environment["PREFECT_HOME"]).rglob("*") if path.is_file()}
    assert [name for name in kept if name.endswith((".db", "run.json", ".log"))]
    assert [name for name, data in kept.items() if secret in data] == []


def wait_for_end(group: int, seconds: float = 10) -> list[str]:
    """The processes of a group that still run after `seconds`; those that only wait to be reaped do not count."""
    deadline = time.monotonic() + seconds
    while True:
        listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        left = [row[2] for row in rows if int(row[0]) == group and not row[1].startswith("Z")]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def test_interrupt_ends_within_seconds_and_leaves_no_process(environment, manifest, tmp_path):
    slow = ("--skip-bad-rows", "--set", "train.steps=100000")
    process = subprocess.Popen(
        list(map(str, command(manifest, tmp_path, *slow))),
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job would ignore it
    )
    try:
        assert process.stderr is not None
        assert any(re.search(r"train \d+/", line) for line in process.stderr)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        rest = process.communicate(timeout=60)[1]
        assert process.returncode == 130, rest
        assert "goes on from" in rest
        assert wait_for_end(process.pid) == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_stock_diffusers_loads_an_exported_adapter_without_pairlora(first, tmp_path):
    output, summary = first
    script = """
import sys
from pathlib import Path
from typing import Any
import torch
from diffusers import StableDiffusionXLPipeline
base, adapter = sys.argv[1:]
pipeline = StableDiffusionXLPipeline.from_pretrained(base)
pipeline.set_progress_bar_config(disable=True)
def draw():
    noise = torch.Generator().manual_seed(0)
    return pipeline("a flat icon of a fox", num_inference_steps=3, generator=noise, output_type="np", height=64, width=64).images
plain = draw()
pipeline.load_lora_weights(adapter)
assert abs(draw() - plain).max() > 1e-3
assert "pairlora" not in sys.modules
"""
    pairs = read_table(output, summary, "pairs")
    done = [pair_id for pair_id, status in zip(pairs["pair_id"], pairs["status"], strict=True) if status == "done"]
    export = ["export", str(output), done[0], "--to", str(tmp_path)]
    subprocess.run([sys.executable, "-c", "from pairlora.cli.main import app; app()", *export], check=True, cwd=ROOT)
    adapter = next(tmp_path.glob("*/style.safetensors"))
    base = ROOT / "pairlora" / "bases" / "embedded"
    done = subprocess.run([sys.executable, "-I", "-c", script, base, adapter], capture_output=True, text=True, cwd=output)
    assert done.returncode == 0, done.stderr
