"""Which adapters a catalogue is drawn with: found in the store by fingerprint, by run and pair, or by pair."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

from pairlora.catalogue.records import ChosenAdapter
from pairlora.errors import ConfigError, MissingAdapterError
from pairlora.manifest.rows import suggest
from pairlora.records import AdapterRecord, Job
from pairlora.report.collection import read_jobs
from pairlora.store.run_store import RunStore

_DIGITS = re.compile(r"[0-9a-f]{8,64}")


def choose_adapters(store: RunStore, names: Sequence[str], base_digest: str) -> tuple[ChosenAdapter, ...]:
    """The adapters that these names mean, in their order.

    ConfigError where a name means none or several, or an adapter of another base; MissingAdapterError where the pair is
    known and its adapter was never trained.
    """
    shelf = _Shelf(store)
    jobs = [shelf.find_job(name) for name in names]
    records = store.read_markers("adapter", (job.fingerprint for job in jobs), AdapterRecord)
    for name, job in zip(names, jobs, strict=True):
        record = records.get(job.fingerprint)
        if record is None:
            raise MissingAdapterError(f"{name}: {store.url} holds no adapter of this pair; `pairlora run` with its manifest trains it")
        if record.base_digest != base_digest:
            raise ConfigError(f"{name}: trained on another base ({record.base}, digest {record.base_digest[:12]}); name that one as base")
    shared = Counter(job.pair.pair_id for job in jobs)
    return tuple(ChosenAdapter(label=_label(job, shared), fingerprint=job.fingerprint, job=job) for job in jobs)


def _label(job: Job, shared: Counter[str]) -> str:
    pair_id = job.pair.pair_id
    return pair_id if shared[pair_id] == 1 else f"{pair_id}@{job.fingerprint[:8]}"


class _Shelf:
    """The trained pairs of a store, read run by run as they are asked for."""

    def __init__(self, store: RunStore):
        self._store = store
        self._jobs: dict[str, list[Job]] = {}

    @cached_property
    def _runs(self) -> list[str]:
        return self._store.list_runs()

    @cached_property
    def _done(self) -> list[str]:
        return sorted(self._store.list_done("adapter"))

    def find_job(self, name: str) -> Job:
        """The pair behind a name."""
        run_id, slash, pair_id = name.rpartition("/")
        if slash:
            return self._find_pair(name, run_id, pair_id)
        matches = [known for known in self._done if known.startswith(name)] if _DIGITS.fullmatch(name) else []
        if len(matches) > 1:
            raise ConfigError(f"adapters: '{name}' begins {len(matches)} fingerprints; write more of its digits")
        wanted = (job for job in self._all_jobs() if (job.fingerprint == matches[0] if matches else job.pair.pair_id == name))
        if (found := next(wanted, None)) is None:
            raise ConfigError(self._explain(name, known=bool(matches)))
        return found

    def _find_pair(self, name: str, run_id: str, pair_id: str) -> Job:
        if run_id not in self._runs:
            raise ConfigError(f"adapters: '{name}': {self._store.url} has no run {run_id!r}; {suggest(run_id, self._runs)}")
        pairs = {job.pair.pair_id: job for job in self._read(run_id)}
        if pair_id not in pairs:
            raise ConfigError(f"adapters: '{name}': run {run_id} has no pair {pair_id!r}; {suggest(pair_id, pairs)}")
        return pairs[pair_id]

    def _explain(self, name: str, *, known: bool) -> str:
        if known:
            return f"adapters: no run of {self._store.url} tells which pair {name} was trained on; name it as run/pair"
        pairs = dict.fromkeys(job.pair.pair_id for job in self._all_jobs())
        if not pairs:
            return f"adapters: '{name}': {self._store.url} holds no trained pairs; `pairlora run` makes them"
        return f"adapters: '{name}' is no fingerprint and no pair of {self._store.url}; {suggest(name, pairs)}"

    def _all_jobs(self) -> Iterator[Job]:
        """The pairs of all runs, those of the newest run first."""
        for run_id in reversed(self._runs):
            yield from self._read(run_id)

    def _read(self, run_id: str) -> list[Job]:
        if run_id not in self._jobs:
            self._jobs[run_id] = read_jobs(self._store.read_parts(run_id))
        return self._jobs[run_id]
