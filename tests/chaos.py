"""A night in which everything dies: flow, workers, S3 server and Prefect server are killed while a manifest is done.

The base is random and tiny, so that most of the time goes to what is under test: processes, the store, and going on.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import fsspec
import httpx
import pandas as pd
import pytest
import torch
from conftest import BUCKET, S3Process, use_s3
from studios import write_pairs
from tiny_base import SAMPLE, TRAIN, make_pipeline

from pairlora.errors import StoreError
from pairlora.store.keys import Kind
from pairlora.store.run_store import RunStore

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PAIRS, DEVICES = 40, 2
START_SECONDS, END_SECONDS, NIGHT_SECONDS = 600, 20, 3600
POLL_SECONDS = 0.25

Target = Literal["flow", "worker", "s3", "prefect"]
TARGETS: tuple[Target, ...] = ("flow", "worker", "s3", "prefect")


def write_studio(folder: Path, pairs: int = PAIRS) -> None:
    """A base, a manifest of pairs that all differ, and the settings of a run."""
    make_pipeline(torch.float32).save_pretrained(folder / "base")
    write_pairs(folder, pairs)
    (folder / "settings.yaml").write_text(json.dumps(describe_settings(folder)))


def describe_settings(folder: Path) -> dict[str, Any]:
    """The configuration of the run, but for its store."""
    return {
        "manifest": str(folder / "pairs.jsonl"),
        "output": {"url": str(folder / "out"), "timeout_seconds": 20},
        "base": {"name": str(folder / "base")},
        "train": TRAIN.model_dump(mode="json"),
        "sample": SAMPLE.model_copy(update={"seeds": (0,)}).model_dump(mode="json"),
        "evaluate": {"clip": "embedded", "clip_revision": None, "bootstrap_samples": 100},
        "execution": {"devices": f"cpu:{DEVICES}", "pack_size": 1, "checkpoint_seconds": 1, "retries": 3},
    }


class PrefectServer:
    """A Prefect server with a home of its own; one that was killed starts again at the same place."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/api"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        private = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "OMP_NUM_THREADS": "1"}
        self.environment = kept | private

    def start(self) -> None:
        command = [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._port), "--no-ui"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, env=self.environment, start_new_session=True, stdout=quiet, stderr=quiet)

    def await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5).is_success:
                    return
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"the Prefect server does not answer at {self.url}")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Flow:
    """One `pairlora` command in a process group of its own."""

    def __init__(self, folder: Path, url: str, environment: dict[str, str], name: str, task: "Task"):
        self.summary = folder / f"{name}.json"
        given = [task.command, folder / task.manifest, "-o", url, "--config", folder / task.settings, *task.options]
        command = [BIN / "pairlora", *given, "--json"]
        with self.summary.open("wb") as out, (folder / f"{name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), cwd=ROOT, env=environment, stdout=out, stderr=log, start_new_session=True
            )

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def find_workers(self) -> list[int]:
        found = subprocess.run(["pgrep", "-P", str(self.process.pid), "-f", "spawn_main"], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def kill(self) -> None:
        """Kill the flow's process alone: its workers must go by themselves."""
        self.process.kill()
        self.process.wait()

    def find_orphans(self) -> list[str]:
        """Processes of the group that still run some seconds after the flow's end."""
        deadline = time.monotonic() + END_SECONDS
        while True:
            listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
            rows = [line.split(None, 2) for line in listed.splitlines()]
            left = [row[-1] for row in rows if int(row[0]) == self.process.pid and not row[1].startswith("Z")]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class Task:
    """What is done over all kills: a command with its files, and the markers by which its progress is told."""

    command: str = "run"
    manifest: str = "pairs.jsonl"
    settings: str = "settings.yaml"
    options: tuple[str, ...] = ()
    kind: Kind = "pair"
    pieces: int = PAIRS
    targets: tuple[Target, ...] = TARGETS


@dataclass
class Night:
    """A manifest that is done over all kills; what was killed, how often the run was begun, and which processes stayed behind."""

    folder: Path
    url: str
    s3: S3Process
    prefect: PrefectServer
    chance: random.Random
    killed: list[Target] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    begun: int = 0
    task: Task = Task()

    def pass_through(self, kills: int) -> dict[str, Any]:
        """Kill so often at random moments, spread over the work, and begin again until the run ends well; gives its summary."""
        targets: list[Target] = [self.task.targets[number % len(self.task.targets)] for number in range(kills)]
        self.chance.shuffle(targets)
        moments = sorted(self.chance.sample(range(self.task.pieces - DEVICES), kills))
        flow, deadline = self.begin(), time.monotonic() + NIGHT_SECONDS
        while time.monotonic() < deadline:
            if flow.code == 0 and not targets:
                return json.loads(flow.summary.read_text())
            if flow.code is not None:
                flow = self._begin_again(flow)
            if targets and self._count_done() >= moments[0] and self._strike(flow, targets[0]):
                targets, moments = targets[1:], moments[1:]
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"the night did not end; killed so far: {self.killed}")

    def begin(self, name: str = "run") -> Flow:
        """Run the manifest, or go on with it."""
        self.begun += 1
        self.prefect.await_answer()
        environment = self.prefect.environment | self.s3.server.environment | {"PREFECT_API_URL": self.prefect.url}
        return Flow(self.folder, self.url, environment, name, self.task)

    def _begin_again(self, flow: Flow) -> Flow:
        self.orphans += flow.find_orphans()
        return self.begin()

    def _count_done(self) -> int:
        with suppress(StoreError):
            return len(RunStore(self.url, timeout=5).list_done(self.task.kind))
        return -1

    def _strike(self, flow: Flow, target: Target) -> bool:
        """Kill one thing, somewhat later than was said; False where there is nothing to kill yet."""
        workers = flow.find_workers()
        if target in ("flow", "worker") and (flow.code is not None or not workers):
            return False
        time.sleep(self.chance.random())
        if target == "flow":
            flow.kill()
        elif target == "worker":
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(workers), signal.SIGKILL)
        else:
            server = self.s3 if target == "s3" else self.prefect
            server.kill()
            time.sleep(self.chance.random())
            server.start()
        self.killed.append(target)
        return True


@contextmanager
def open_night(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Night]:
    """Servers before a night; `seed` decides when things die, and the environment of this process gives access to the store."""
    (folder / "s3").mkdir()
    s3, prefect = S3Process(folder / "s3"), PrefectServer(folder)
    use_s3(s3.server, monkeypatch)
    prefect.start()
    try:
        s3.start()
        yield Night(folder, f"s3://{BUCKET}/night", s3, prefect, random.Random(seed))
    finally:
        prefect.kill()
        s3.stop()


def read_table(summary: dict[str, Any], name: str) -> pd.DataFrame:
    """A table of a run's report, from the bucket."""
    return pd.read_parquet(summary["table_urls"][name], filesystem=fsspec.filesystem("s3", skip_instance_cache=True))


def read_payloads(store: RunStore) -> dict[str, bytes]:
    """All objects that lie at keys of payloads."""
    keys = [key for folder in ("adapters", "images", "baselines", "prefixes") for key in store._objects.keys(folder)]
    return {key: data for key in keys if (data := store._objects.read(key)) is not None}
