"""The store: what was made, in one folder or bucket; the only module that knows the keys below its root.

A payload is written first, at a key that holds its digest; then its marker, create-only. What has a marker is done.
"""

import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from pairlora.errors import CorruptObjectError, StoreError, UnsafeStoreError
from pairlora.records import Record
from pairlora.store.drivers import TIMEOUT_SECONDS
from pairlora.store.facts import ObjectFacts
from pairlora.store.keys import (
    CATALOGUE,
    SEGMENT,
    Kind,
    checked_key,
    checked_kind,
    checked_segment,
    checked_shown,
    checkpoint_folder,
    checkpoint_key,
    digests_key,
    heartbeat_key,
    log_path,
    marker_key,
    report_key,
    review_folder,
    run_folder,
    run_key,
    tombstone_key,
)
from pairlora.store.objects import open_objects
from pairlora.store.uploads import Upload

Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 16
LISTED_KEYS = 1000
"""So many payloads are looked for by one listing rather than one by one."""


class StoredObject(Record):
    """Where a payload lies, and what its bytes must be."""

    key: str = Field(description="key below the store's root")
    sha256: str
    bytes: int = Field(ge=0)


class RunStore:
    """What runs have made below one root URL: a folder, or a prefix of a bucket of s3, gs or az.

    Cheap to make, safe to use from several threads, and pickled as its URL and options.
    """

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None, *, timeout: float = TIMEOUT_SECONDS):
        """Open the store at `url` without touching it. `storage_options` go to the fsspec driver and are never shown.

        `timeout` is the seconds after which a call of a bucket is given up, its retries included.
        Raises UnsafeUrlError, or MissingExtraError where the driver of the protocol is not installed.
        """
        self._given = (url, storage_options, timeout)
        self._objects = open_objects(url, dict(storage_options or {}), timeout)
        self.url = self._objects.url
        self.is_memory = self.url.startswith("memory:")

    def __reduce__(self):
        return _open_store, self._given

    def __repr__(self) -> str:
        return f"RunStore({self.url!r})"

    def url_of(self, key: str) -> str:
        """The absolute URL of a key; a plain path where the store is a local folder."""
        return f"{self.url}/{checked_key(key)}"

    def probe(self, *, single_writer: bool = False) -> None:
        """Check that the target can be written, and that it honours create-only writes.

        Raises UnsafeStoreError where a second create-only write replaces the first, unless `single_writer`.
        """
        key = f".tmp/probe-{uuid.uuid4().hex}"
        try:
            self._objects.create(key, b"first")
            replaced = self._objects.create(key, b"second")
        finally:
            # where the probe failed to write, its own error says more than that of the removal
            removed = self._removed_quietly(key)
        if not removed:
            raise StoreError(f"{self.url} can be written but {key} cannot be removed again; grant the right to delete below it")
        if replaced and not single_writer:
            raise UnsafeStoreError(
                f"{self.url} does not honour create-only writes, so two runs could overwrite each other; "
                "use another target, or promise with --single-writer that only one run writes at a time"
            )

    def _removed_quietly(self, key: str) -> bool:
        try:
            self._objects.delete(key)
        except StoreError:
            return False
        return True

    # Payloads

    def put_adapter_file(self, fingerprint: str, name: str, data: bytes) -> StoredObject:
        """Store one file of a trained adapter."""
        return self._put("adapters/" + checked_segment(fingerprint) + "/{sha256}/" + checked_segment(name), data)

    def put_basis(self, data: bytes) -> StoredObject:
        """Store the frozen A that adapters share, as safetensors."""
        return self._put("bases/{sha256}.safetensors", data)

    def put_image(self, data: bytes) -> StoredObject:
        """Store a generated image, a PNG."""
        return self._put("images/{xx}/{sha256}.png", data)

    def put_baseline(self, data: bytes) -> StoredObject:
        """Store an image drawn without an adapter, a PNG."""
        return self._put("baselines/{xx}/{sha256}.png", data)

    def put_prefix(self, data: bytes) -> StoredObject:
        """Store latents at the onset, which all styles of a prompt and seed start from, as safetensors."""
        return self._put("prefixes/{xx}/{sha256}.safetensors", data)

    def put_inversion(self, data: bytes) -> StoredObject:
        """Store the latents that a finished picture was inverted to, as safetensors."""
        return self._put("inversions/{xx}/{sha256}.safetensors", data)

    def put_styled(self, data: bytes, suffix: str) -> StoredObject:
        """Store a styled asset, whose format `suffix` names."""
        return self._put("styled/{xx}/{sha256}." + checked_segment(suffix), data)

    def put_foreign(self, data: bytes) -> StoredObject:
        """Store a LoRA file of any trainer as it is, a safetensors file."""
        return self._put("foreign/{xx}/{sha256}.safetensors", data)

    def _put(self, template: str, data: bytes) -> StoredObject:
        sha256 = hashlib.sha256(data).hexdigest()
        key = template.replace("{xx}", sha256[:2]).replace("{sha256}", sha256)
        # written even where the key exists, so that making a damaged payload again heals it
        self._objects.write(key, data)
        return StoredObject(key=key, sha256=sha256, bytes=len(data))

    def read_payload(self, key: str, sha256: str, size: int) -> bytes:
        """The bytes at `key`. Raises CorruptObjectError where they are missing or not those that the marker states."""
        data = self._objects.read(checked_key(key))
        if data is None:
            what = "is missing"
        elif len(data) != size:
            what = f"has {len(data)} bytes instead of {size}"
        elif hashlib.sha256(data).hexdigest() != sha256:
            what = "has another digest than its marker states"
        else:
            return data
        raise CorruptObjectError(f"{self.url}/{key} {what}; delete its marker below done/, and the next run makes it again")

    def find_whole(self, sizes: Mapping[str, int]) -> set[str]:
        """Of payload keys with the sizes that their markers state, those that are there in that size. Their bytes are not read."""
        keys = [checked_key(key) for key in sizes]
        if len(keys) > LISTED_KEYS:
            folders = {key.partition("/")[0] for key in keys}
            listed = {key: size for folder in sorted(folders) for key, size in self._objects.sizes(folder).items()}
            return {key for key, size in sizes.items() if listed.get(key) == size}
        found = side_by_side(self._objects.measure, keys)
        return {key for (key, size), measured in zip(sizes.items(), found, strict=True) if measured == size}

    # Checkpoints

    def put_checkpoint(self, fingerprint: str, data: bytes) -> None:
        """Store the checkpoint of a training: the payload, then a marker that replaces the older one; then the older payload goes."""
        stored = self._put(f"{checkpoint_folder(fingerprint)}/{{sha256}}.safetensors", data)
        self._objects.write(checkpoint_key(fingerprint), stored.model_dump_json().encode())
        self._drop_folder(checkpoint_folder(fingerprint), {stored.key, checkpoint_key(fingerprint)})

    def read_checkpoint(self, fingerprint: str) -> bytes | None:
        """The last checkpoint of a training, None where there is none. Raises CorruptObjectError where it is damaged."""
        if (marker := self._objects.read(checkpoint_key(fingerprint))) is None:
            return None
        stored = self._parsed(checkpoint_key(fingerprint), marker, StoredObject)
        return self.read_payload(stored.key, stored.sha256, stored.bytes)

    def drop_checkpoint(self, fingerprint: str) -> None:
        """Remove the checkpoint of a training, its marker first; no error where there is none."""
        self._objects.delete(checkpoint_key(fingerprint))
        self._drop_folder(checkpoint_folder(fingerprint))

    def drop_done_checkpoints(self, done: set[str]) -> None:
        """Remove what a run that was killed between the marker of a training and the end of its checkpoint left behind."""
        for fingerprint in done.intersection(self._objects.children("checkpoints")):
            self.drop_checkpoint(fingerprint)

    # Markers

    def mark_done(self, kind: Kind, key: str, record: BaseModel) -> bool:
        """Write the marker of something whose payload is stored. True where this call made it, False where it was there."""
        return self._objects.create(marker_key(kind, key), record.model_dump_json().encode())

    def mark_all_done(self, kind: Kind, records: Mapping[str, BaseModel]) -> None:
        """Write the markers of many things of a kind, by key, side by side."""
        side_by_side(lambda item: self.mark_done(kind, *item), list(records.items()))

    def read_marker(self, kind: Kind, key: str, model: type[Model]) -> Model | None:
        """The record of one marker, None where there is none. Raises CorruptObjectError where it is no `model`."""
        return self.read_markers(kind, [key], model).get(key)

    def read_markers(self, kind: Kind, keys: Iterable[str], model: type[Model]) -> dict[str, Model]:
        """The records of many markers, by key, read side by side; keys without a marker are left out."""
        wanted = list(dict.fromkeys(keys))
        found = self._read_all([marker_key(kind, key) for key in wanted])
        return {key: self._parsed(marker_key(kind, key), data, model) for key, data in zip(wanted, found, strict=True) if data is not None}

    def drop_marker(self, kind: Kind, key: str) -> None:
        """Remove a marker, so that what it stands for is made again; no error where there is none."""
        self._objects.delete(marker_key(kind, key))

    def list_done(self, kind: Kind) -> set[str]:
        """The keys of all markers of a kind, by one listing."""
        pattern = re.compile(rf"done/{checked_kind(kind)}/[^/]+/([^/]+)\.json")
        return {match[1] for key in self._objects.keys(f"done/{kind}") if (match := pattern.fullmatch(key))}

    # What pruning looks at

    def list_markers(self, kind: Kind) -> dict[str, ObjectFacts]:
        """The markers of a kind without their records, by key of what they stand for."""
        pattern = re.compile(rf"done/{checked_kind(kind)}/[^/]+/([^/]+)\.json")
        found = self._objects.describe(f"done/{kind}")
        return {match[1]: facts for key, facts in found.items() if (match := pattern.fullmatch(key))}

    def list_objects(self, folder: str) -> dict[str, ObjectFacts]:
        """All objects below a folder of the store, by key."""
        return self._objects.describe(checked_key(folder))

    def list_run_folders(self) -> frozenset[str]:
        """The ids of all runs that have left anything, whether they have a record or not."""
        return frozenset(name for name in self._objects.children("runs") if SEGMENT.fullmatch(name))

    def list_uploads(self) -> list[Upload]:
        """Uploads in parts to keys of the store that were begun and never ended."""
        return self._objects.uploads()

    def abort_upload(self, upload: Upload) -> None:
        """Let go of such an upload and its parts; no error where it has ended."""
        self._objects.abort(upload)

    # Forgetting

    def drop_payload(self, key: str) -> None:
        """Remove a payload; no error where there is none. Its marker goes first, or what reads it finds it damaged."""
        self._objects.delete(checked_key(key))

    def drop_adapter(self, fingerprint: str) -> None:
        """Remove a trained adapter: its marker, every file of it, its checkpoint and what people decided on it."""
        self.drop_marker("adapter", fingerprint)
        self.drop_checkpoint(fingerprint)
        self._drop_folder(f"adapters/{checked_segment(fingerprint)}")
        self._drop_folder(review_folder(fingerprint))

    def drop_report(self, run_id: str) -> None:
        """Remove all files of a run's report; it can be built again from what else there is."""
        self._drop_folder(f"{run_folder(run_id)}/report")

    def add_tombstone(self, sha256: str, record: BaseModel) -> None:
        """Write down that a picture is not to be trained on; an older tombstone stays."""
        self._objects.create(tombstone_key(sha256), record.model_dump_json().encode())

    def list_tombstones(self) -> set[str]:
        """The digests of all pictures that are not to be trained on, by one listing."""
        return {key.rpartition("/")[2].removesuffix(".json") for key in self._objects.keys("tombstones") if key.endswith(".json")}

    def _drop_folder(self, folder: str, kept: Set[str] = frozenset()) -> None:
        side_by_side(self._objects.delete, [key for key in self._objects.keys(folder) if key not in kept])

    # Reviews

    def add_review(self, fingerprint: str, name: str, record: BaseModel) -> bool:
        """Write a decision on an adapter, create-only. False where there was one of that name."""
        return self._objects.create(f"{review_folder(fingerprint)}/{checked_segment(name)}.json", record.model_dump_json().encode())

    def read_reviews(self, fingerprints: Iterable[str], model: type[Model]) -> list[Model]:
        """All decisions on these adapters, each adapter's in the order of their names, from one listing."""
        folders = {review_folder(fingerprint) for fingerprint in fingerprints}
        keys = sorted(key for key in self._objects.keys("reviews") if key.rpartition("/")[0] in folders and key.endswith(".json"))
        return [self._parsed(key, data, model) for key, data in zip(keys, self._read_all(keys), strict=True) if data is not None]

    # Runs

    def write_run(self, run_id: str, record: BaseModel) -> None:
        """Write the record of a run, in place of an older one."""
        self._objects.write(run_key(run_id), record.model_dump_json(indent=2).encode())

    def read_run(self, run_id: str, model: type[Model]) -> Model | None:
        """The record of a run, None where there is none. Raises CorruptObjectError where it is no `model`."""
        data = self._objects.read(run_key(run_id))
        return None if data is None else self._parsed(run_key(run_id), data, model)

    def list_runs(self, prefix: str = "") -> list[str]:
        """The ids of all runs of pairs that have a record, or of catalogues by `CATALOGUE`, in ascending order, which is that of time."""
        listed = (name for name in self._objects.children("runs") if SEGMENT.fullmatch(name))
        names = sorted(name for name in listed if name.startswith(CATALOGUE) == (prefix == CATALOGUE))
        found = side_by_side(self._objects.exists, [run_key(name) for name in names])
        return [name for name, exists in zip(names, found, strict=True) if exists]

    def write_part(self, run_id: str, name: str, data: bytes) -> None:
        """Write one Parquet part of a run, in place of an older one of that name."""
        self._objects.write(f"{run_folder(run_id)}/parts/{checked_segment(name)}.parquet", data)

    def read_part(self, run_id: str, name: str) -> bytes | None:
        """One Parquet part of a run, None where there is none."""
        return self._objects.read(f"{run_folder(run_id)}/parts/{checked_segment(name)}.parquet")

    def read_parts(self, run_id: str) -> dict[str, bytes]:
        """All Parquet parts of a run, by name."""
        folder = f"{run_folder(run_id)}/parts"
        keys = [key for key in self._objects.keys(folder) if key.endswith(".parquet")]
        parts = zip(keys, self._read_all(keys), strict=True)
        return {key.removeprefix(f"{folder}/").removesuffix(".parquet"): data for key, data in parts if data is not None}

    def write_heartbeat(self, run_id: str, name: str, beat: BaseModel) -> None:
        """Write the sign of life of a portion of a run, in place of the last one."""
        self._objects.write(heartbeat_key(run_id, name), beat.model_dump_json().encode())

    def read_heartbeats(self, run_id: str, names: Sequence[str], model: type[Model]) -> dict[str, Model]:
        """The last signs of life of these portions of a run, by name; those that gave none are left out."""
        keys = [heartbeat_key(run_id, name) for name in names]
        found = zip(names, keys, self._read_all(keys), strict=True)
        return {name: self._parsed(key, data, model) for name, key, data in found if data is not None}

    def write_log(self, run_id: str, name: str, text: str) -> None:
        """Write what was logged during one try at a shard, in place of an older state of it."""
        self._objects.write(f"{run_folder(run_id)}/{log_path(name)}", text.encode(errors="replace"))

    def write_digests(self, name: str, data: bytes) -> None:
        """Write what a plan remembers of a manifest's pictures, in place of what one before it did."""
        self._objects.write(digests_key(name), data)

    def read_digests(self, name: str) -> bytes | None:
        """What the last plan of a manifest remembers of its pictures; None where there was none."""
        return self._objects.read(digests_key(name))

    def read_logs(self, run_id: str) -> dict[str, str]:
        """The logs of a run's tries, by name."""
        keys = [key for key in self._objects.keys(f"{run_folder(run_id)}/logs") if key.endswith(".log")]
        logs = zip(keys, self._read_all(keys), strict=True)
        return {key.rpartition("/")[2].removesuffix(".log"): data.decode() for key, data in logs if data is not None}

    def write_report_file(self, run_id: str, relative_path: str, data: bytes) -> str:
        """Write one file of a run's report, in place of an older one, and return its URL."""
        self._objects.write(report_key(run_id, relative_path), data)
        return self.report_url(run_id, relative_path)

    def read_report_file(self, run_id: str, relative_path: str) -> bytes | None:
        """The bytes of a file of a run's report; None where there is none."""
        return self._objects.read(report_key(run_id, relative_path))

    def report_url(self, run_id: str, relative_path: str = "index.html") -> str:
        """The URL of a file of a run's report, whether it exists or not."""
        return self.url_of(report_key(run_id, relative_path))

    def read_shown(self, key: str) -> bytes | None:
        """The bytes of what a report shows; None where there is none. UnsafeUrlError for every other key."""
        return self._objects.read(checked_shown(key))

    def sign_shown(self, key: str, seconds: int) -> str:
        """An address of what a report shows that works without credentials for so long. UnsafeUrlError for every other key."""
        return self._objects.sign(checked_shown(key), seconds)

    def list_shown(self, run_id: str) -> list[str]:
        """The keys of all files of a run's report."""
        return self._objects.keys(f"{run_folder(run_id)}/report")

    def _read_all(self, keys: Sequence[str]) -> list[bytes | None]:
        return side_by_side(self._objects.read, keys)

    def _parsed(self, key: str, data: bytes, model: type[Model]) -> Model:
        try:
            return model.model_validate_json(data)
        except ValidationError as error:
            raise CorruptObjectError(f"{self.url}/{key} is no {model.__name__}; delete it, and the next run makes it again") from error


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """`function` of each item, in their order, in threads: a store is slow to answer, and answers many at a time."""
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(THREADS, len(items))) as pool:
        return list(pool.map(function, items))


def _open_store(url: str, storage_options: dict[str, Any] | None, timeout: float) -> RunStore:
    return RunStore(url, storage_options, timeout=timeout)
