"""One try at a shard as the store keeps it: what was begun, what became of each pair, and what was logged.

Every try has parts of its own, so that no retry, resumed run or second run of the manifest hides what another one did.
A process that is killed leaves its pairs `pending`, without an end.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from pairlora.errors import StoreError
from pairlora.execution.shard_log import ShardLog
from pairlora.records import ImageReference, Outcome, Record, RowShard
from pairlora.store.parts import encode_records
from pairlora.store.run_store import RunStore

log = logging.getLogger(__name__)


class Attempt:
    """A try at a shard, named within its run; its parts are written when it begins, when pairs are settled, and when it fails."""

    def __init__(self, store: RunStore, run_id: str, shard: RowShard, name: str, device: str = "", shown: type[Record] = ImageReference):
        """`shown` is the kind of the references that are settled with outcomes."""
        self._store = store
        self._run_id = run_id
        self._part = f"{shard.name}.{name}"
        self._log = ShardLog()
        self._shown = shown
        self._references: list[Record] = []
        self._earlier: list[Outcome] = []
        self._named = {"shard": shard.name, "attempt": name}
        begun = {"status": "pending", "started_at": datetime.now(UTC), "device": device, **self._named}
        self._outcomes = {job.row: Outcome(pair_id=job.row_id, row=job.row, fingerprint=job.fingerprint, **begun) for job in shard.jobs}

    @property
    def outcomes(self) -> list[Outcome]:
        """What is known of each pair of the shard."""
        return list(self._outcomes.values())

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record the beginning, and the error that ends it, where there is one."""
        with self._log.opened():
            self._write()
            try:
                yield
            except Exception as error:
                log.warning("%s was given up: %s: %s", self._part, type(error).__name__, error)
                self._fail(error)
                raise

    def keep(self, outcomes: Sequence[Outcome]) -> None:
        """Take down tries at single pairs that were given up and begun again within this one; the next record has them."""
        self._earlier += [outcome.model_copy(update=self._named) for outcome in outcomes]

    def settle(self, outcomes: Sequence[Outcome], references: Sequence[Record]) -> None:
        """Record what became of some pairs, and the pictures that the run shows for them."""
        self._references += references
        self._outcomes |= {outcome.row: outcome.model_copy(update=self._named) for outcome in outcomes}
        self._write()

    def _fail(self, error: Exception) -> None:
        failed = {"status": "failed", "error_class": type(error).__name__, "error_message": str(error), "ended_at": datetime.now(UTC)}
        pending = [outcome for outcome in self.outcomes if outcome.status == "pending"]
        self._outcomes |= {outcome.row: outcome.model_copy(update=failed) for outcome in pending}
        with suppress(StoreError):  # the store may be what failed; the error itself goes on to whoever tries again
            self._write()

    def _write(self) -> None:
        """Pictures before outcomes: a pair that is settled shows all that it has."""
        self._store.write_part(self._run_id, f"{self._part}.images", encode_records(self._references, self._shown))
        self._store.write_part(self._run_id, f"{self._part}.outcomes", encode_records([*self._earlier, *self.outcomes], Outcome))
        self._store.write_log(self._run_id, self._part, self._log.text)
