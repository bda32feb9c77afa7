"""A studio's Prefect server: portions as flow runs on it, which flow runs count as lost, and what people hear of their nights."""

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import httpx
import prefect
import pytest
import yaml
from chaos import Flow, Task, write_studio
from cluster import Cluster, await_truth, open_cluster
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelling

from deployments.automations import HEARTBEAT_SECONDS, detect_lost
from flows.shard import customize_fleet
from flows.stylize import stylize_fleet
from pairlora.catalogue.config import CatalogueConfig
from pairlora.config import FleetRun, RunConfig
from pairlora.errors import ConfigError, DispatchError
from pairlora.execution.portions import name_portion
from pairlora.records import Portion
from tasks.dispatch import FlowRuns, tag_fleet

ROOT = Path(__file__).parents[1]
QUICK = {"SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S", "SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "1", "UI_URL": "http://studio.example"}
HEARTBEAT, PATIENCE, PERIOD = 5, 10, 10


pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server with all deployments, and no machine."""
    folder = tmp_path_factory.mktemp("studio")
    with open_cluster(folder, str(folder / "out"), {}, **QUICK) as cluster:
        cluster.deploy()
        yield cluster


def test_a_flow_run_may_miss_two_heartbeats_before_it_counts_as_lost():
    environments = [yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())["definitions"]["environment"]]
    for template in (ROOT / "deployments/pools").glob("*.json"):
        environments.append(json.loads(template.read_text())["variables"]["properties"]["env"]["default"])
    assert len(environments) == 4
    heartbeats = {int(environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) for environment in environments}
    assert heartbeats == {HEARTBEAT_SECONDS}
    assert detect_lost().within.total_seconds() >= 3 * HEARTBEAT_SECONDS


def test_a_portion_is_one_flow_run_however_often_it_is_asked_for(cluster: Cluster):
    run = RunConfig.model_validate({"manifest": "pairs.csv", "output": {"url": "out"}})
    portions = [name_portion("20260102T030405Z-abcdef", [f"shard-{number}"]) for number in range(3)]
    flow_runs = FlowRuns("customize-portion/gpu")
    with temporary_settings({PREFECT_API_URL: cluster.url}):
        cancelled, lost, waiting = [flow_runs.start(run, portion) for portion in portions]
        assert flow_runs.start(run, portions[0]) == cancelled
        assert flow_runs.find(portions[0].run_id) == dict(zip((cancelled, lost, waiting), portions, strict=True))
        flow_runs.cancel(cancelled)
        flow_runs.declare_lost(lost)
        phases = flow_runs.look([cancelled, lost, waiting, str(uuid.uuid4())])
        assert phases == {cancelled: "cancelled", lost: "ended", waiting: "waiting"}
        assert flow_runs.find(portions[0].run_id) == {waiting: portions[2]}
        with pytest.raises(ConfigError, match="no such deployment"):
            FlowRuns("customize-portion/elsewhere").start(run, portions[0])


def test_a_server_that_is_away_is_asked_again_later():
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 0}), pytest.raises(DispatchError):
        FlowRuns("customize-portion/gpu").look([str(uuid.uuid4())])


PAIRS_RUN = RunConfig.model_validate({"manifest": "pairs.csv", "output": {"url": "out"}})
CATALOGUE_RUN = CatalogueConfig.model_validate({"manifest": "assets.csv", "output": {"url": "out"}, "adapters": ["fox"]})


@pytest.mark.parametrize(
    ("night", "run", "run_id", "deployment"),
    [
        (customize_fleet, PAIRS_RUN, "20260102T030405Z-fedcba", "customize-portion/gpu"),
        (stylize_fleet, CATALOGUE_RUN, "catalogue-20260102T030405Z-fedcba", "stylize-portion/gpu"),
    ],
)
def test_a_fleet_that_is_cancelled_cancels_what_it_began_and_what_it_took_over(
    cluster: Cluster, night: prefect.Flow, run: FleetRun, run_id: str, deployment: str
):
    taken_over, begun = (name_portion(run_id, [shard]) for shard in ("shard-0", "shard-1"))
    foreign = name_portion("20260102T030405Z-000000", ["shard-0"])

    @flow(persist_result=False)
    def fleet(*portions: Portion) -> tuple[UUID, list[str]]:
        flow_runs = FlowRuns(deployment)
        tag_fleet(run_id)
        assert list(flow_runs.find(run_id).values()) == ([taken_over] if begun in portions else [])
        return UUID(flow_run.get_id()), [flow_runs.start(run, portion) for portion in portions]

    with temporary_settings({PREFECT_API_URL: cluster.url}):
        _, (adopted, of_others) = fleet(taken_over, foreign)
        parent, (own,) = fleet(begun)
        with get_client(sync_client=True) as client:
            (hook,) = night.on_cancellation_hooks
            hook(night, client.read_flow_run(parent), Cancelling())
        phases = FlowRuns("").look([adopted, own, of_others])
        assert phases == {adopted: "cancelled", own: "cancelled", of_others: "waiting"}


@contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """A webhook on loopback, and the texts that were posted to it."""
    heard: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def begin_without_machine(cluster: Cluster) -> str:
    """A flow run that the server thinks is running; gives its id."""
    (deployment,) = cluster.ask("deployments/filter", deployments={"name": {"any_": ["on-demand"]}})
    run = cluster.ask(f"deployments/{deployment['id']}/create_flow_run", state={"type": "PENDING"})["id"]
    cluster.ask(f"flow_runs/{run}/set_state", state={"type": "RUNNING"}, force=True)
    return run


def give_heartbeat(cluster: Cluster, run: str) -> None:
    """What the process of a flow run tells the server every some seconds."""
    event = {"event": "prefect.flow-run.heartbeat", "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"}}
    now = datetime.now(UTC).isoformat()
    httpx.post(f"{cluster.url}/events", json=[event | {"id": str(uuid.uuid4()), "occurred": now}], timeout=30).raise_for_status()


@contextmanager
def living(cluster: Cluster, run: str) -> Iterator[None]:
    """A flow run that gives its heartbeats."""
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(1):
            give_heartbeat(cluster, run)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def read_state(cluster: Cluster, run: str) -> str:
    (found,) = cluster.ask("flow_runs/filter", flow_runs={"id": {"any_": [run]}})
    return found["state_type"]


def test_people_hear_of_nights_that_failed_did_not_start_or_lost_their_machine(tmp_path: Path, cluster: Cluster):
    write_studio(tmp_path, 1)
    with listening() as (url, heard):
        options = ["--heartbeat", str(HEARTBEAT), "--patience", str(PATIENCE), "--period", str(PERIOD)]
        command = [sys.executable, "-m", "deployments.automations", "--webhook", url, *options]
        for _ in range(2):
            subprocess.run(command, cwd=ROOT, env=cluster.environment, check=True, capture_output=True)
        assert len(cluster.ask("automations/filter")) == 4
        cluster.prefect("deployment", "run", "customize-pairs/on-demand")  # no machine is there to do it
        healthy, lost = begin_without_machine(cluster), begin_without_machine(cluster)
        give_heartbeat(cluster, lost)
        (tmp_path / "0.png").unlink()
        flow = Flow(tmp_path, str(tmp_path / "out"), cluster.environment, "run", Task())
        with living(cluster, healthy):
            for subject in ("night Failed", "night Crashed", "night did not start", "no night began"):
                await_truth(lambda subject=subject: any(subject in text for text in heard), f"{subject} among {heard}")
            assert (read_state(cluster, healthy), read_state(cluster, lost)) == ("RUNNING", "CRASHED")
        flow.kill()
    assert any("1 of 1 rows failed" in text and "http://studio.example" in text for text in heard)
