"""A picture forgotten: all that the store holds because of it is found and removed, and a tombstone keeps it from being trained on again.

Adapters are learned from content and style; pictures and scores follow from adapters. From a ground truth follow scores alone.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from pydantic import Field

from pairlora.errors import MissingPictureError
from pairlora.execution.runs import rebuild_report
from pairlora.records import AdapterRecord, FinishedPair, ImageRecord, ImageReference, Job, Record, RunRecord, ScoreRecord, Tombstone
from pairlora.report.collection import PLAN_PART, UNPLANNED_PART, read_jobs
from pairlora.report.references import IMAGES_SUFFIX
from pairlora.store.parts import decode_records, drop_pairs
from pairlora.store.run_store import RunStore
from pairlora.store.urls import name_url, open_url

THREADS = 16


class Derived(Record):
    """All that a store holds because of one picture."""

    sha256: str = Field(description="digest of the picture's bytes")
    pairs: dict[str, tuple[str, ...]] = Field(description="ids of the pairs that read it, by run")
    adapters: tuple[str, ...] = Field(description="fingerprints of the adapters that were learned from it, trained to the end or not")
    images: tuple[ImageRecord, ...] = Field(description="pictures drawn with these adapters")
    scores: tuple[str, ...] = Field(description="ids of scores of these pictures, or of others as pictures of these pairs")
    finished: tuple[str, ...] = Field(description="keys of the markers of finished pairs that refer to any of this")
    reports: tuple[str, ...] = Field(description="runs whose report shows any of this, or stands beside one that does")

    def describe(self) -> str:
        """How much there is, in one line."""
        pairs = sum(map(len, self.pairs.values()))
        counts = {"pairs": pairs, "adapters": len(self.adapters), "pictures": len(self.images), "scores": len(self.scores)}
        return ", ".join(f"{count} {noun}" for noun, count in (counts | {"reports": len(self.reports)}).items())


def digest_asset(asset: str) -> str:
    """The digest that names a picture: itself, or that of the bytes of a file or URL. MissingPictureError where there is none."""
    if re.fullmatch(r"[0-9a-f]{64}", asset.lower()):
        return asset.lower()
    try:
        with open_url(asset) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise MissingPictureError(f"{name_url(asset)} is neither a digest of 64 hexadecimal digits nor a file that can be read") from error


def find_derived(store: RunStore, asset: str) -> Derived:
    """All that follows from the picture of this digest, by the plans of all runs and the markers of the store."""
    parts = {run_id: store.read_parts(run_id) for run_id in store.list_runs()}
    readers = {run_id: [job for job in read_jobs(read) if _reads(job, asset)] for run_id, read in parts.items()}
    pairs = {run_id: tuple(job.pair.pair_id for job in jobs) for run_id, jobs in readers.items() if jobs}
    learned = {job.fingerprint for jobs in readers.values() for job in jobs if asset in (job.content_sha256, job.style_sha256)}
    adapters = store.read_markers("adapter", store.list_done("adapter"), AdapterRecord)
    learned |= {fingerprint for fingerprint, record in adapters.items() if asset in record.pictures}
    images = {
        key: one for key, one in store.read_markers("image", store.list_done("image"), ImageRecord).items() if one.fingerprint in learned
    }
    shown = {one.score_id for run_id, ids in pairs.items() for one in _read_references(parts[run_id]) if one.pair_id in ids}
    scored = store.read_markers("score", store.list_done("score"), ScoreRecord)
    finished = store.read_markers("pair", store.list_done("pair"), FinishedPair)
    ended = {
        key: one for key, one in finished.items() if one.fingerprint in learned or any(ref.score_id in shown for ref in one.references)
    }
    judged = {ref.score_id for one in ended.values() for ref in one.references if one.fingerprint in learned}
    scores = {key for key, one in scored.items() if key in shown | judged or one.image_id in images}
    return Derived(
        sha256=asset,
        pairs=pairs,
        adapters=tuple(sorted(learned)),
        images=tuple(images.values()),
        scores=tuple(sorted(scores)),
        finished=tuple(sorted(ended)),
        reports=_find_reports(store, pairs.keys()),
    )


def forget_derived(store: RunStore, derived: Derived) -> None:
    """Remove what was found, and write the tombstone first, so that no run begins with the picture meanwhile.

    The plans of runs go last of all that is removed: a removal that was cut short is found again by them. Reports are built again.
    """
    store.add_tombstone(derived.sha256, Tombstone(sha256=derived.sha256, forgotten_at=datetime.now(UTC)))
    for run_id in derived.reports:
        store.drop_report(run_id)
    _do_all(lambda key: store.drop_marker("pair", key), derived.finished)
    _do_all(lambda key: store.drop_marker("score", key), derived.scores)
    _do_all(lambda image: _drop_image(store, image), derived.images)
    _do_all(store.drop_adapter, derived.adapters)
    for run_id, pair_ids in derived.pairs.items():
        _drop_from_run(store, run_id, set(pair_ids))
    for run_id in derived.reports:
        rebuild_report(store, run_id)


def _reads(job: Job, asset: str) -> bool:
    return any(digest == asset for _, digest in job.pictures)


def _read_references(parts: dict[str, bytes]) -> Iterable[ImageReference]:
    return [one for name, data in parts.items() if name.endswith(IMAGES_SUFFIX) for one in decode_records(data, ImageReference)]


def _find_reports(store: RunStore, touched: Iterable[str]) -> tuple[str, ...]:
    """The reports of these runs, and of later ones of the same manifests, which show pictures of the run before."""
    records = {run_id: record for run_id in store.list_runs() if (record := store.read_run(run_id, RunRecord)) is not None}
    first: dict[str, str] = {}
    for run_id in sorted(touched):
        first.setdefault(records[run_id].manifest, run_id)
    later = [run_id for run_id, record in records.items() if record.manifest in first and run_id >= first[record.manifest]]
    return tuple(run_id for run_id in later if store.read_report_file(run_id, "index.html") is not None)


def _drop_image(store: RunStore, image: ImageRecord) -> None:
    store.drop_marker("image", image.image_id)
    store.drop_payload(image.url)


def _drop_from_run(store: RunStore, run_id: str, pair_ids: set[str]) -> None:
    """Take pairs out of all that a run recorded, its plan last; lines of its logs that name them go too."""
    named = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, sorted(pair_ids)))})(?![\w-])")
    for name, text in store.read_logs(run_id).items():
        store.write_log(run_id, name, "".join(line for line in text.splitlines(keepends=True) if not named.search(line)))
    parts = store.read_parts(run_id)
    for name in sorted(parts.keys() - {UNPLANNED_PART}, key=lambda name: name == PLAN_PART):
        store.write_part(run_id, name, drop_pairs(parts[name], pair_ids))


def _do_all(function: Callable, items: Iterable) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(function, items):
            pass
