"""Work on devices: one task run is one shard."""

from functools import partial

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.records import AssetShard
from pairlora.config import RunConfig
from pairlora.execution.workers import WorkerPool
from pairlora.records import Outcome, Shard
from tasks.policies import RETRY_DELAYS, is_transient

on_device = partial(
    task, cache_policy=NO_CACHE, persist_result=False, retries=2, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_transient
)


@on_device(task_run_name="customize-{shard.name}")
def customize_shard(workers: WorkerPool, shard: Shard, run: RunConfig, run_id: str) -> list[Outcome]:
    """Train, draw and score the pairs of one shard in a worker process; what the store holds is not done again."""
    return workers.do_shard("customize_shard", shard, run, run_id, attempt=task_run.run_count or 1)


@on_device(task_run_name="stylize-{shard.name}")
def stylize_shard(workers: WorkerPool, shard: AssetShard, run: CatalogueConfig, run_id: str) -> list[Outcome]:
    """Invert, draw and score the assets of one shard in a worker process; what the store holds is not done again."""
    return workers.do_shard("stylize_shard", shard, run, run_id, attempt=task_run.run_count or 1)
