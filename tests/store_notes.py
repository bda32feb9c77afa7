"""Records to mark things with, and many writers that mark one thing at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor

from pairlora.records import Record
from pairlora.store.run_store import RunStore

WRITERS = 16


class Note(Record):
    """A record to mark things with."""

    text: str


def key_of(number: int) -> str:
    return f"{number:064x}"[::-1]


def race(store: RunStore, key: str) -> list[bool]:
    """What each of many threads is told that marks one key at the same time."""
    start = threading.Barrier(WRITERS)

    def mark(number: int) -> bool:
        start.wait()
        return store.mark_done("score", key, Note(text=f"writer {number}"))

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(mark, range(WRITERS)))
