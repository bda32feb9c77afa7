"""Digests of a manifest's pictures, those of earlier plans remembered: a picture whose stamp is the same is not read again.

They are remembered in the store, an object a manifest. Who may write there is trusted, as with markers; a worker compares the picture
itself with its digest before it trains, so that a wrong one fails its pair. An ETag or the times of a file are trusted to change with it.
"""

import io
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from pairlora.errors import PairloraError, StoreError
from pairlora.store.run_store import RunStore
from pairlora.store.stamps import stamp_pictures
from pairlora.store.urls import read_bytes

THREADS = 16
COLUMNS = ("url", "stamp", "sha256")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureDigests:
    """sha256 of pictures by URL, or what is wrong with one; `remembered` counts those that were not read."""

    found: Mapping[str, str | PairloraError]
    remembered: int = 0

    def __getitem__(self, url: str) -> str:
        """The digest of a picture. Raises the PictureError of one that cannot be read."""
        found = self.found[url]
        if isinstance(found, PairloraError):
            raise found
        return found


def digest_pictures(store: RunStore, manifest: str, urls: Iterable[str], max_bytes: int, *, remember: bool) -> PictureDigests:
    """Digests of all pictures of a manifest, read where their stamps are new; with `remember` the next plan of the manifest knows them.

    Raises StoreError where a bucket fails, which is no fault of a picture.
    """
    urls = list(dict.fromkeys(urls))
    known, stamps = recall_digests(store, manifest), stamp_pictures(urls)
    fitting = {url for url, stamp in stamps.items() if int(stamp.partition(" ")[0]) <= max_bytes}
    found: dict[str, str | PairloraError] = {url: known[url, stamps[url]] for url in urls if url in fitting and (url, stamps[url]) in known}
    fresh = [url for url in urls if url not in found]
    remembered = len(found)
    with ThreadPoolExecutor(THREADS) as pool:
        found |= zip(fresh, pool.map(lambda url: _digest_picture(url, max_bytes), fresh), strict=True)
    log.info("%d pictures read, %d known by their stamps", len(fresh), remembered)
    kept = [(url, stamps[url], digest) for url, digest in found.items() if url in stamps and isinstance(digest, str)]
    if remember and set(kept) != {(url, stamp, digest) for (url, stamp), digest in known.items()}:
        remember_digests(store, manifest, kept)
    return PictureDigests(found, remembered)


def _digest_picture(url: str, max_bytes: int) -> str | PairloraError:
    """sha256 of a picture's file, or the PictureError that says why there is none."""
    try:
        return sha256(read_bytes(url, max_bytes)).hexdigest()
    except StoreError:
        raise
    except PairloraError as error:
        return error


def recall_digests(store: RunStore, manifest: str) -> dict[tuple[str, str], str]:
    """What an earlier plan of the manifest remembered, by URL and stamp; nothing where that cannot be read."""
    data = store.read_digests(_name(manifest))
    if data is None:
        return {}
    try:
        table = pq.ParquetFile(io.BytesIO(data)).read(columns=list(COLUMNS), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        log.warning("remembered digests of %s cannot be read, so all pictures are: %s", manifest, error)
        return {}
    urls, stamps, digests = (table.column(name).to_pylist() for name in COLUMNS)
    return {(url, stamp): digest for url, stamp, digest in zip(urls, stamps, digests, strict=True)}


def remember_digests(store: RunStore, manifest: str, kept: list[tuple[str, str, str]]) -> None:
    """Keep the digests of one plan in place of those of the plan before."""
    columns = zip(*kept, strict=True) if kept else ((), (), ())
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(values, pa.string()) for name, values in zip(COLUMNS, columns, strict=True)}), buffer)
    store.write_digests(_name(manifest), buffer.getvalue())


def _name(manifest: str) -> str:
    return sha256(manifest.encode()).hexdigest()[:32]
