"""Adapters of a store to a folder or bucket, one folder an adapter."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from pairlora.config import RunConfig
from pairlora.errors import ConfigError, MissingAdapterError, StoreError
from pairlora.records import AdapterRecord, Record, RunRecord
from pairlora.release.contents import Release, describe_release
from pairlora.release.files import Precision, list_files
from pairlora.report.collection import PairContents, collect_run
from pairlora.store.objects import open_objects
from pairlora.store.run_store import RunStore

LEAST_DIGITS = 8
"""So many digits of a fingerprint name an adapter, where no other begins with them."""


class Published(Record):
    """An adapter in the folder that it was written to."""

    pair_id: str
    url: str


def write_releases(
    store: RunStore, releases: Iterable[Release], to: str, precision: Precision = "float32", *, content: bool = False
) -> list[Published]:
    """Write the files of releases to `to`, a folder or bucket, one folder each.

    Raises CorruptObjectError where an adapter is damaged; what was written before stays.
    """
    target = open_objects(to, {})
    published = []
    for release in releases:
        for name, data in list_files(store, release, precision, content=content):
            target.write(f"{release.name}/{name}", data)
        published.append(Published(pair_id=release.name, url=f"{target.url}/{release.name}"))
    return published


def read_releases(store: RunStore, run_id: str, wanted: Callable[[PairContents], bool]) -> Iterator[Release]:
    """The wanted adapters of a run, each with all that the run says of it. StoreError where the store has no such run."""
    record = store.read_run(run_id, RunRecord)
    if record is None:
        raise StoreError(f"{store.url} has no run {run_id!r}")
    run = RunConfig.model_validate(record.config)
    for pair in collect_run(store, record).read_pairs():
        if wanted(pair) and (release := describe_release(store, pair, run)) is not None:
            yield release


def find_releases(store: RunStore, names: Sequence[str], run_id: str | None = None) -> list[Release]:
    """The adapters that are named by pairs of a run (the newest where left out), or by the first digits of fingerprints.

    ConfigError where a name is neither. An adapter that no run of the store shows any more is exported without a card's details.
    """
    runs = store.list_runs()
    chosen = run_id or (runs[-1] if runs else None)
    wanted = set(names)
    shown = read_releases(store, chosen, lambda pair: pair.pair_id in wanted) if chosen else ()
    by_pair = {release.name: release for release in shown}
    return [by_pair[name] if name in by_pair else _find_by_fingerprint(store, name, chosen) for name in names]


def _find_by_fingerprint(store: RunStore, name: str, run_id: str | None) -> Release:
    """The adapter whose fingerprint begins so, as the run shows it that it was trained for, or else this one."""
    found = [one for one in store.list_done("adapter") if one.startswith(name)] if len(name) >= LEAST_DIGITS else []
    if len(found) != 1:
        what = f"{len(found)} adapters begin with it" if found else "it is neither a pair of the run nor begins a fingerprint"
        raise ConfigError(f"{name!r} names no adapter of {store.url}: {what} (run {run_id or 'none'})")
    record = store.read_marker("adapter", found[0], AdapterRecord)
    if record is None:
        raise MissingAdapterError(f"{store.url} has lost the marker of {found[0]}")
    run, _, pair_id = record.made_for.partition("/")
    for one in dict.fromkeys((run, run_id)):
        if one in store.list_runs():
            shown = read_releases(store, one, lambda pair: pair.adapter is not None and pair.adapter.fingerprint == record.fingerprint)
            if (release := next(shown, None)) is not None:
                return release
    return Release(pair_id or found[0][:12], record)
