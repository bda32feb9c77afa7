"""Worker processes: killed past their time, replaced when they die, gone with their pool."""

import json
import os
import signal
import subprocess
import threading
import time

import pytest
from tiny_base import make_picture

from pairlora.config import RunConfig
from pairlora.errors import ConfigError, StoppedError, WorkerError
from pairlora.execution.planning import plan_run
from pairlora.execution.workers import WorkerPool, parse_devices
from pairlora.store.run_store import RunStore


def make_shard(folder, **changes):
    """A shard of one pair on the embedded base that trains for hours, unless `changes` say otherwise, and its run."""
    for name in ("a", "b"):
        make_picture(ord(name), 64).save(folder / f"{name}.png")
    row = {"pair_id": "fox", "content": "a.png", "style": "b.png", "content_prompt": "a fox", "style_template": "{prompt} in ink"}
    (folder / "pairs.jsonl").write_text(json.dumps(row))
    settings = {"manifest": str(folder / "pairs.jsonl"), "output": {"url": str(folder / "out")}, "base": {"name": "embedded"}}
    run = RunConfig.model_validate(settings | {"train": {"steps": 10**6}, "sample": {"steps": 1}} | changes)
    (shard,) = plan_run(run, RunStore(run.output.url), "base").shards
    return shard, run


def find_workers():
    """Process ids of this process's spawned workers."""
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "spawn_main"], capture_output=True, text=True)
    return {int(pid) for pid in found.stdout.split()}


def await_training(events):
    deadline = time.monotonic() + 240
    while not events and time.monotonic() < deadline:
        time.sleep(0.2)
    assert events, "the worker did not begin"


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error_and_the_next_shard_gets_a_new_one(tmp_path):
    shard, run = make_shard(tmp_path)
    events = []
    with WorkerPool(["cpu"], [events.append]) as workers:

        def kill():
            await_training(events)
            for pid in find_workers():
                os.kill(pid, signal.SIGKILL)

        threading.Thread(target=kill).start()
        with pytest.raises(WorkerError, match="died"):
            workers.do_shard("customize_shard", shard, run, "run")
        short, quick = make_shard(tmp_path, train={"steps": 2, "content_steps": 1, "draws": 1})
        assert [outcome.status for outcome in workers.do_shard("customize_shard", short, quick, "run")] == ["done"]


@pytest.mark.slow
def test_a_shard_past_its_time_is_killed_and_names_the_setting(tmp_path):
    shard, run = make_shard(tmp_path, execution={"shard_timeout_seconds": 2})
    with WorkerPool(["cpu"]) as workers, pytest.raises(WorkerError, match=r"raise execution\.shard_timeout_seconds"):
        workers.do_shard("customize_shard", shard, run, "run")


@pytest.mark.slow
def test_a_pool_that_ends_gives_its_shards_up_and_leaves_no_process(tmp_path):
    shard, run = make_shard(tmp_path)
    events, errors = [], []

    def work(workers):
        try:
            workers.do_shard("customize_shard", shard, run, "run")
        except StoppedError as error:
            errors.append(error)

    with WorkerPool(["cpu"], [events.append]) as workers:
        thread = threading.Thread(target=work, args=(workers,))
        thread.start()
        await_training(events)
    thread.join(timeout=30)
    assert len(errors) == 1
    assert not find_workers()


@pytest.mark.parametrize(("devices", "parsed"), [("cpu", ["cpu"]), ("cpu:3", ["cpu"] * 3), ("cuda:0,2", ["cuda:0", "cuda:2"])])
def test_devices_are_parsed(devices, parsed):
    assert parse_devices(devices) == parsed


@pytest.mark.parametrize("devices", ["gpu", "cpu:x", "cuda:a"])
def test_a_device_that_is_not_understood_names_the_forms(devices):
    with pytest.raises(ConfigError, match="'cpu:2'"):
        parse_devices(devices)
