"""Which adapters a catalogue is drawn with: of the store, by fingerprint, by run and pair, or by pair; or files."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.foreign import FileShelf, is_file
from pairlora.catalogue.records import ChosenAdapter
from pairlora.errors import ConfigError, MissingAdapterError
from pairlora.manifest.rows import suggest
from pairlora.records import AdapterRecord, Job
from pairlora.report.collection import read_jobs
from pairlora.store.keys import IN_STORE
from pairlora.store.run_store import RunStore

_DIGITS = re.compile(r"[0-9a-f]{8,64}")


def choose_adapters(store: RunStore, run: CatalogueConfig, base_digest: str, *, keep: bool = False) -> tuple[ChosenAdapter, ...]:
    """The adapters that a configuration names, in their order; with `keep` the store gets the bytes of those that are files.

    ConfigError with all that is wrong: a name that means none or several, an adapter or file of another base, a file that is none or does
    not say how prompts read in its style. MissingAdapterError where all is right but for one pair whose adapter was never trained.
    """
    shelf, files = _Shelf(store, base_digest), FileShelf(run, store.list_tombstones())
    found: dict[str, ChosenAdapter] = {}
    errors = _blame_templates(run)
    for name in run.adapters:
        try:
            found[name] = _choose(name, shelf, files)
        except (ConfigError, MissingAdapterError) as error:
            errors.append(error)
    errors += [ConfigError(f"adapters: {' and '.join(names)} are one adapter; name it once") for names in _list_twins(found)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConfigError("\n".join([f"{len(errors)} adapters cannot be used:", *(f"  {error}" for error in errors)]))
    if keep:
        files.keep(store)
    return _label(list(found.values()))


def _choose(name: str, shelf: "_Shelf", files: FileShelf) -> ChosenAdapter:
    """The adapter behind a name, labelled without regard to others."""
    if (match := IN_STORE.fullmatch(name)) is not None:
        return shelf.find(name, shelf.check_root(name, match["root"], match["fingerprint"]))
    return files.open(name) if is_file(name) else shelf.find(name, name)


def _blame_templates(run: CatalogueConfig) -> list[ConfigError | MissingAdapterError]:
    """Adapters of the store that the configuration gives a style template to."""
    what = "is no file, and adapters of the store know how prompts read in their styles; take it out"
    return [ConfigError(f"style_templates['{name}']: {what}") for name in run.style_templates if not is_file(name)]


def _list_twins(found: dict[str, ChosenAdapter]) -> list[list[str]]:
    """Names that mean the same adapter."""
    names: dict[str, list[str]] = {}
    for name, adapter in found.items():
        names.setdefault(adapter.fingerprint, []).append(name)
    return [one for one in names.values() if len(one) > 1]


def _label(adapters: Sequence[ChosenAdapter]) -> tuple[ChosenAdapter, ...]:
    """Adapters whose labels are shared, with the first digits of the fingerprint behind."""
    shared = Counter(adapter.label.casefold() for adapter in adapters)  # some disks tell no capitals from small letters

    def name(one: ChosenAdapter) -> str:
        return one.label if shared[one.label.casefold()] == 1 else f"{one.label}@{one.fingerprint[:8]}"

    return tuple(one.model_copy(update={"label": name(one)}) for one in adapters)


class _Shelf:
    """The trained pairs of a store, read run by run as they are asked for."""

    def __init__(self, store: RunStore, base_digest: str):
        self._store = store
        self._base_digest = base_digest
        self._jobs: dict[str, list[Job]] = {}

    @cached_property
    def _runs(self) -> list[str]:
        return self._store.list_runs()

    @cached_property
    def _done(self) -> list[str]:
        return sorted(self._store.list_done("adapter"))

    def find(self, given: str, name: str) -> ChosenAdapter:
        """The trained adapter behind a name of the store; messages say what was `given`."""
        job = self._find_job(name)
        record = self._store.read_marker("adapter", job.fingerprint, AdapterRecord)
        if record is None:
            raise MissingAdapterError(
                f"{given}: {self._store.url} holds no adapter of this pair; `pairlora run` with its manifest trains it"
            )
        if record.base_digest != self._base_digest:
            raise ConfigError(f"{given}: trained on another base ({record.base}, digest {record.base_digest[:12]}); name that one as base")
        return ChosenAdapter(label=job.pair.pair_id, fingerprint=job.fingerprint, job=job)

    def check_root(self, name: str, root: str, fingerprint: str) -> str:
        """The fingerprint in the URL of an adapter; ConfigError where it is one of another store."""
        if RunStore(root).url != self._store.url:
            raise ConfigError(
                f"adapters: '{name}' lies in another store than {self._store.url}; `pairlora export {root} {fingerprint[:12]} --to FOLDER` "
                "writes it as a file, which can be named"
            )
        return fingerprint

    def _find_job(self, name: str) -> Job:
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
