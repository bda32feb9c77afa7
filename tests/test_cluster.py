"""Many machines: a fleet's portions on a Prefect work pool, machines that are lost, and a parent that is killed."""

import json
from collections import Counter
from pathlib import Path

import pytest
from chaos import read_table, write_studio
from cluster import Cluster, await_truth, open_cluster
from conftest import S3Server
from test_chaos import check_store, count_repeats, tell

from pairlora.records import Heartbeat
from pairlora.store.run_store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.s3, pytest.mark.timeout(1800)]


def gets_on(cluster: Cluster, store: RunStore) -> bool:
    """Whether a pair of the portion that was begun first is done."""
    begun = [run for run in cluster.read_flow_runs("customize-portion") if run["start_time"]]
    first = min(begun, key=lambda run: run["start_time"])
    beats = store.read_heartbeats(first["tags"][0], [first["name"]], Heartbeat)
    return any(beat.settled for beat in beats.values())


@pytest.mark.parametrize(("count", "portions"), [(16, 2), pytest.param(40, 4, marks=pytest.mark.chaos)])
def test_a_lost_machine_costs_its_portion_alone_and_the_report_is_one(
    count: int, portions: int, tmp_path: Path, s3_url: str, s3_server: S3Server
):
    write_studio(tmp_path, count)
    store, settings = RunStore(s3_url), (f"fleet.portions={portions}", "fleet.silence_seconds=15")
    with open_cluster(tmp_path, s3_url, s3_server.environment) as cluster:
        cluster.deploy()
        lost = cluster.add_machine("lost")
        fleet = cluster.send_fleet(*settings)
        await_truth(lambda: any(run["state_type"] == "RUNNING" for run in cluster.read_flow_runs("customize-portion")), "a machine works")
        cluster.add_machine("kept")
        await_truth(lambda: gets_on(cluster, store), "a pair of the first portion is done")
        lost.kill()
        await_truth(lambda: len(cluster.read_flow_runs("customize-portion")) > portions, "the lost portion is begun again")
        fleet.kill()  # and another one takes over what goes on
        fleet = cluster.send_fleet(*settings)
        await_truth(lambda: fleet.code is not None, "the run has ended", 900)
        assert fleet.code == 0, (tmp_path / "run.log").read_text()
        states = Counter(run["state_type"] for run in cluster.read_flow_runs("customize-portion"))
        nights = cluster.read_flow_runs("customize-pairs")
    summary = json.loads(fleet.summary.read_text())
    pairs, attempts = read_table(summary, "pairs"), read_table(summary, "attempts")
    tell(flow_runs=states, tries=len(attempts), repeats=count_repeats(attempts))
    assert set(pairs.status) == {"done"}
    assert (len(pairs), pairs.trained.sum(), summary["trained"]) == (count, count, count)
    check_store(store, count)
    assert store.list_runs() == [summary["run_id"]]
    assert states == {"CRASHED": 1, "COMPLETED": portions}
    assert count_repeats(attempts) <= 1  # what the lost machine was at
    scheduled = [run for run in nights if (run["state_type"], run["auto_scheduled"]) == ("SCHEDULED", True)]
    assert len(scheduled) > 1  # by the schedule of `nightly`
