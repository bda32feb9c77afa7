"""A cluster on one machine: the deployments of a studio on a Prefect server, and workers that can be killed like machines."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from chaos import BIN, ROOT, Flow, PrefectServer, Task

PREFECT = BIN / "prefect"
WAIT_SECONDS = 600
POLL_SECONDS = 0.25


def read_settings(name: str) -> dict[str, str]:
    """The variables of an environment file of the guide."""
    lines = (ROOT / "deployments" / name).read_text().splitlines()
    return {key: value for line in lines if not line.startswith("#") for key, _, value in [line.partition("=")]}


class Machine:
    """A process worker of a pool, with the flow runs that it starts: what one machine of a studio runs."""

    def __init__(self, name: str, pool: str, environment: dict[str, str], folder: Path):
        command = [PREFECT, "worker", "start", "--pool", pool, "--name", name, "--limit", "1", "--with-healthcheck"]
        # a health check of its own port each, on loopback
        own = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": "0"}
        with (folder / f"{name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment | own, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def list_processes(self) -> list[int]:
        """The worker, its flow runs, which have sessions of their own, and their workers."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        parents = {int(pid): int(parent) for pid, parent in map(str.split, listed.splitlines())}
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def kill(self) -> None:
        """Lose the machine: everything on it ends at once."""
        for pid in self.list_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Cluster:
    """A Prefect server with the studio's pools and deployments, as deployments/README.md makes them."""

    def __init__(self, folder: Path, server: PrefectServer, store: str, environment: dict[str, str]):
        self.folder = folder
        self.url, self.store = server.url, store
        self.machines: list[Machine] = []
        self.fleets: list[Flow] = []
        self.environment = (
            server.environment
            | environment
            | {
                "PREFECT_API_URL": server.url,
                "PAIRLORA_HOME": str(ROOT),
                "PAIRLORA_MANIFEST": str(folder / "pairs.jsonl"),
                "PAIRLORA_OUTPUT": store,
                "PAIRLORA_BASE": "embedded",
            }
        )

    def prefect(self, *arguments: str) -> str:
        """What a command of Prefect prints; an error where it fails."""
        done = subprocess.run([PREFECT, "--no-prompt", *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deploy(self) -> None:
        for pool in ("studio", "gpu"):
            self.prefect("work-pool", "create", pool, "--base-job-template", "deployments/pools/process.json", "--type", "process")
        self.prefect("deploy", "--all", "--prefect-file", "deployments/prefect.yaml")

    def add_machine(self, name: str, pool: str = "gpu") -> Machine:
        machine = Machine(name, pool, self.environment, self.folder)
        self.machines.append(machine)
        return machine

    def send_fleet(self, task: Task, *settings: str) -> Flow:
        """A task on the machines of the pool, looked after from here."""
        options = ["--fleet", "--devices", "cpu:1", *(part for setting in settings for part in ("--set", setting))]
        spread = replace(task, options=(*task.options, *options))
        self.fleets.append(Flow(self.folder, self.store, self.environment, "run", spread))
        return self.fleets[-1]

    def ask(self, path: str, **described: Any) -> Any:
        """What the server's API answers to a POST."""
        answer = httpx.post(f"{self.url}/{path}", json=described, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def read_flow_runs(self, flow: str) -> list[dict[str, Any]]:
        return self.ask("flow_runs/filter", flows={"name": {"any_": [flow]}})

    def close(self) -> None:
        for one in (*self.fleets, *self.machines):
            one.kill()


@contextmanager
def open_cluster(folder: Path, store: str, environment: dict[str, str], **settings: str) -> Iterator[Cluster]:
    """A server whose own settings are named in capitals without PREFECT_, and nothing deployed; everything ends with it."""
    server = PrefectServer(folder)
    batched = {name: value for name, value in read_settings("server.env").items() if "RECORDER" in name}
    server.environment |= batched | {f"PREFECT_{name}": value for name, value in settings.items()}
    server.start()
    cluster = Cluster(folder, server, store, environment)
    try:
        server.await_answer()
        yield cluster
    finally:
        cluster.close()
        server.kill()


def await_truth(claim: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until something holds; an error that says what did not."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s still not: {what}")
        time.sleep(POLL_SECONDS)
