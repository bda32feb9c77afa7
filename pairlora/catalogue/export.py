"""Styled assets as files under names that lead back to the catalogue."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pairlora.catalogue.collection import collect_catalogue
from pairlora.catalogue.naming import name_file
from pairlora.errors import StoreError
from pairlora.records import RunRecord
from pairlora.store.run_store import RunStore

THREADS = 16


def export_catalogue(store: RunStore, run_id: str, folder: Path) -> int:
    """Write every picture that a run shows below `folder`, in place of files of those names; gives their number."""
    record = store.read_run(run_id, RunRecord)
    if record is None:
        raise StoreError(f"{store.url} has no run {run_id!r}")
    contents = collect_catalogue(store, record)
    named = {name_file(image.reference, image.record): image.record for asset in contents.assets for image in asset.images}
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(THREADS) as pool:
        for name, data in zip(named, pool.map(lambda one: store.read_payload(one.url, one.sha256, one.bytes), named.values()), strict=True):
            (folder / name).write_bytes(data)
    return len(named)
