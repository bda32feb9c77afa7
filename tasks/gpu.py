"""Work on devices. Lost workers and failing stores are tried again here and nowhere else; bad input never is."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run
from prefect.tasks import exponential_backoff

from pairlora.config import RunConfig
from pairlora.errors import StoreError, WorkerError
from pairlora.records import Outcome, Shard
from pairlora.workers import WorkerPool


async def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failed shard may succeed when it is done again: its worker died, or its store did not answer."""
    try:
        await state.aresult()
    except (StoreError, WorkerError):
        return True
    except Exception:
        return False
    return False


@task(
    task_run_name="customize-{shard.name}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_condition_fn=is_transient,
)
def customize_shard(workers: WorkerPool, shard: Shard, run: RunConfig, run_id: str) -> list[Outcome]:
    """Train, draw and score the pairs of one shard in a worker process; what the store holds is not done again."""
    return workers.customize_shard(shard, run, run_id, attempt=task_run.run_count or 1)
