"""Many machines: a fleet's portions on a Prefect work pool, machines that are lost, and a parent that is killed."""

import json
from collections import Counter
from pathlib import Path

import pytest
from chaos import Flow, Task, describe_settings, read_table, write_studio
from cluster import Cluster, await_truth, open_cluster
from conftest import S3Server
from test_catalogue_chaos import SHARD_ASSETS, write_catalogue
from test_chaos import check_store, count_repeats, tell

from pairlora.bases import load_base
from pairlora.config import RunConfig
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.pipeline import ShardPipeline
from pairlora.execution.runs import close_run, open_run
from pairlora.records import Heartbeat
from pairlora.store.keys import CATALOGUE
from pairlora.store.run_store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.s3, pytest.mark.timeout(1800)]


def gets_on(cluster: Cluster, store: RunStore, portion: str) -> bool:
    """Whether a row of the portion that was begun first is done."""
    begun = [run for run in cluster.read_flow_runs(portion) if run["start_time"]]
    first = min(begun, key=lambda run: run["start_time"])
    beats = store.read_heartbeats(first["tags"][0], [first["name"]], Heartbeat)
    return any(beat.settled for beat in beats.values())


def await_end(fleet: Flow, log: Path) -> dict:
    """The summary of a fleet that ends well."""
    await_truth(lambda: fleet.code is not None, "the run has ended", 900)
    assert fleet.code == 0, log.read_text()
    return json.loads(fleet.summary.read_text())


def pass_through_losses(cluster: Cluster, task: Task, portion: str, portions: int) -> dict:
    """A task whose first machine is lost with what it had begun, and then the fleet's own process; gives the summary of the next one.

    `portion` is the flow of its portions, of which there are at first so many.
    """
    store, settings = RunStore(cluster.store), (f"fleet.portions={portions}", "fleet.silence_seconds=15")
    lost = cluster.add_machine("lost")
    fleet = cluster.send_fleet(task, *settings)
    await_truth(lambda: any(run["state_type"] == "RUNNING" for run in cluster.read_flow_runs(portion)), "a machine works")
    cluster.add_machine("kept")
    await_truth(lambda: gets_on(cluster, store, portion), "a row of the first portion is done")
    lost.kill()
    await_truth(lambda: len(cluster.read_flow_runs(portion)) > portions, "the lost portion is begun again")
    fleet.kill()  # and another one takes over what goes on
    return await_end(cluster.send_fleet(task, *settings), cluster.folder / "run.log")


def train_here(folder: Path, url: str) -> None:
    """The studio's pairs, done in this process."""
    settings = describe_settings(folder)
    run = RunConfig.model_validate(settings | {"output": settings["output"] | {"url": url}})
    plan, store = open_run(run), RunStore(url)
    pipeline = ShardPipeline(run, plan.run_id, load_base(run.base.name), store, Scorer(ClipEncoder("embedded"), None))
    for shard in plan.shards:
        pipeline.customize_shard(shard)
    close_run(run, plan, [])


@pytest.mark.parametrize(("count", "portions"), [(16, 2), pytest.param(40, 4, marks=pytest.mark.chaos)])
def test_a_lost_machine_costs_its_portion_alone_and_the_report_is_one(
    count: int, portions: int, tmp_path: Path, s3_url: str, s3_server: S3Server
):
    write_studio(tmp_path, count)
    store = RunStore(s3_url)
    with open_cluster(tmp_path, s3_url, s3_server.environment) as cluster:
        cluster.deploy()
        summary = pass_through_losses(cluster, Task(), "customize-portion", portions)
        states = Counter(run["state_type"] for run in cluster.read_flow_runs("customize-portion"))
        nights = cluster.read_flow_runs("customize-pairs")
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


@pytest.mark.parametrize(("count", "portions"), [(24, 2), pytest.param(80, 4, marks=pytest.mark.chaos)])
def test_a_lost_machine_costs_a_catalogue_no_asset_and_the_next_fleet_draws_nothing(
    count: int, portions: int, tmp_path: Path, s3_url: str, s3_server: S3Server
):
    write_studio(tmp_path, 1)
    train_here(tmp_path, s3_url)
    write_catalogue(tmp_path, count)
    task = Task("stylize", "catalogue.jsonl", "catalogue.yaml", ("--adapter", "pair-0"))
    store = RunStore(s3_url)
    with open_cluster(tmp_path, s3_url, s3_server.environment) as cluster:
        cluster.deploy()
        summary = pass_through_losses(cluster, task, "stylize-portion", portions)
        states = Counter(run["state_type"] for run in cluster.read_flow_runs("stylize-portion"))
        again = await_end(cluster.send_fleet(task), tmp_path / "run.log")
    assets, styled = (read_table(summary, name) for name in ("assets", "styled"))
    repeats = int((assets.attempts - 1).clip(lower=0).sum())
    tell(flow_runs=states, statuses=Counter(assets.status), tries=int(assets.attempts.sum()), repeats=repeats)
    assert set(assets.status) <= {"done", "reused"}
    marked = [len(store.list_done(kind)) for kind in ("asset", "styled")]
    assert [len(assets), len(styled)] == marked == [count, 2 * count]
    assert states == {"CRASHED": 1, "COMPLETED": portions}
    assert repeats <= SHARD_ASSETS  # what the lost machine was at
    assert store.list_runs(CATALOGUE) == sorted({summary["run_id"], again["run_id"]})
    assert (again["counts"], again["images_drawn"]) == ({"reused": count}, 0)
