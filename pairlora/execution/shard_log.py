"""What the library logs while a shard is done, with the pair in every line."""

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_pairs: ContextVar[str] = ContextVar("pairs", default="-")


@contextmanager
def naming_pairs(pair_ids: Iterable[str]) -> Iterator[None]:
    """Name the pairs that are worked on in every line that is logged meanwhile; '-' stands for all of a shard."""
    token = _pairs.set(",".join(pair_ids))
    try:
        yield
    finally:
        _pairs.reset(token)


class ShardLog(logging.Handler):
    """Collects the library's lines of the thread that opened it. Messages of the library hold no secrets, and neither do these."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(pairs)s] %(message)s"))
        self._thread = threading.get_ident()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            record.pairs = _pairs.get()
            self._lines.append(self.format(record))

    @property
    def text(self) -> str:
        """All lines so far."""
        return "".join(f"{line}\n" for line in self._lines)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Listen to the library from INFO on, whatever the process shows."""
        library = logging.getLogger("pairlora")
        level = library.level
        library.addHandler(self)
        library.setLevel(min(level or logging.INFO, logging.INFO))
        try:
            yield
        finally:
            library.removeHandler(self)
            library.setLevel(level)
