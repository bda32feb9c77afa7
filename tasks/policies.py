"""Which failures are tried again: stores that do not answer and workers that are lost; bad input and full disks never."""

from typing import Any

from prefect.tasks import exponential_backoff

from pairlora.errors import NoSpaceError, StoreError, UnsafeStoreError, WorkerError

RETRY_DELAYS = exponential_backoff(backoff_factor=2)
STORAGE_RETRIES = 2


async def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether what failed may succeed when it is done again."""
    try:
        await state.aresult()
    except (UnsafeStoreError, NoSpaceError):
        return False
    except (StoreError, WorkerError):
        return True
    except Exception:
        return False
    return False
