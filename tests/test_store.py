"""The laws of the store, on every kind of target."""

import errno
import os
import pickle
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from pairlora import objects
from pairlora.errors import CorruptObjectError, MissingExtraError, StoreError, UnsafeStoreError, UnsafeUrlError
from pairlora.records import Record
from pairlora.store import RunStore, StoredObject

WRITERS = 16


class Note(Record):
    """A record to mark things with."""

    text: str


def key_of(number: int) -> str:
    return f"{number:064x}"[::-1]


def overwrite(store: RunStore, key: str, data: bytes) -> None:
    """Damage an object behind the store's back."""
    if "://" not in store.url:
        Path(store.url, key).write_bytes(data)
    else:
        with fsspec.open(f"{store.url}/{key}", "wb") as file:
            file.write(data)  # pyright: ignore[reportAttributeAccessIssue]


def race(store: RunStore, key: str) -> list[bool]:
    """What each of many threads is told that marks one key at the same time."""
    start = threading.Barrier(WRITERS)

    def mark(number: int) -> bool:
        start.wait()
        return store.mark_done("score", key, Note(text=f"writer {number}"))

    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(mark, range(WRITERS)))


# Markers


def test_of_many_writers_of_one_marker_exactly_one_wins(store: RunStore):
    for number in range(5):
        won = race(store, key_of(number))
        assert won.count(True) == 1
        assert store.read_marker("score", key_of(number), Note) == Note(text=f"writer {won.index(True)}")


def test_a_marker_is_never_replaced(store: RunStore):
    assert store.mark_done("image", "abc", Note(text="first"))
    assert not store.mark_done("image", "abc", Note(text="second"))
    assert store.read_marker("image", "abc", Note) == Note(text="first")


def test_the_listing_holds_what_was_marked_and_nothing_else(store: RunStore):
    assert store.list_done("image") == set()
    store.put_image(b"a payload without a marker")
    assert store.list_done("image") == set()
    store.mark_done("image", "abc", Note(text=""))
    store.mark_done("image", "abd", Note(text=""))
    store.mark_done("score", "xyz", Note(text=""))
    store.mark_done("score", "xyz", Note(text=""))
    assert store.list_done("image") == {"abc", "abd"}
    assert store.list_done("score") == {"xyz"}
    assert store.list_done("adapter") == set()


def test_a_dropped_marker_can_be_made_again(store: RunStore):
    store.mark_done("image", "abc", Note(text="first"))
    store.drop_marker("image", "abc")
    store.drop_marker("image", "abc")
    assert store.read_marker("image", "abc", Note) is None
    assert store.list_done("image") == set()
    assert store.mark_done("image", "abc", Note(text="second"))


def test_a_listing_of_more_markers_than_a_page_is_whole_and_so_is_their_reading(store: RunStore):
    keys = [key_of(number) for number in range(1100)]
    with ThreadPoolExecutor(WRITERS) as pool:
        assert all(pool.map(lambda key: store.mark_done("score", key, Note(text=key)), keys))
    assert store.list_done("score") == set(keys)
    notes = store.read_markers("score", [*keys, "absent"], Note)
    assert notes == {key: Note(text=key) for key in keys}


def test_a_marker_that_is_no_record_is_named_with_its_remedy(store: RunStore):
    store.mark_done("image", "abc", Note(text=""))
    overwrite(store, "done/image/ab/abc.json", b'{"text": "cut')
    with pytest.raises(CorruptObjectError, match=r"done/image/ab/abc\.json is no Note; delete it"):
        store.read_marker("image", "abc", Note)


def test_markers_of_an_unknown_kind_are_refused(store: RunStore):
    with pytest.raises(UnsafeUrlError, match="kinds are adapter, image, score, baseline"):
        store.mark_done("../runs", "abc", Note(text=""))  # pyright: ignore[reportArgumentType]


# Payloads


def put_each(store: RunStore, data: bytes) -> list[StoredObject]:
    return [store.put_adapter_file("f" * 64, "style.safetensors", data), store.put_image(data), store.put_baseline(data)]


def test_a_payload_lies_at_a_key_with_its_digest_and_reads_back(store: RunStore):
    data = os.urandom(70_000)
    for stored in put_each(store, data):
        assert stored.sha256 in stored.key
        assert stored.bytes == len(data)
        assert store.read_payload(stored.key, stored.sha256, stored.bytes) == data


def test_keys_below_the_root_are_those_of_the_layout(store: RunStore):
    adapter, image, baseline = put_each(store, b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert adapter.key == f"adapters/{'f' * 64}/{digest}/style.safetensors"
    assert image.key == f"images/ba/{digest}.png"
    assert baseline.key == f"baselines/ba/{digest}.png"


def test_an_empty_payload_is_stored(store: RunStore):
    stored = store.put_image(b"")
    assert store.read_payload(stored.key, stored.sha256, 0) == b""


def test_a_flipped_bit_and_a_truncated_payload_are_found(store: RunStore):
    data = bytes(range(256)) * 40
    for stored in put_each(store, data):
        overwrite(store, stored.key, data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(CorruptObjectError, match=f"{stored.key} has another digest .* delete its marker"):
            store.read_payload(stored.key, stored.sha256, stored.bytes)
        overwrite(store, stored.key, data[:-1])
        with pytest.raises(CorruptObjectError, match="has 10239 bytes instead of 10240"):
            store.read_payload(stored.key, stored.sha256, stored.bytes)


def test_a_damaged_payload_is_healed_by_making_it_again(store: RunStore):
    stored = store.put_image(b"picture")
    overwrite(store, stored.key, b"pictura")
    assert store.put_image(b"picture") == stored
    assert store.read_payload(stored.key, stored.sha256, stored.bytes) == b"picture"


def test_a_payload_that_is_gone_is_corrupt(store: RunStore):
    with pytest.raises(CorruptObjectError, match=r"images/aa/bb\.png is missing"):
        store.read_payload("images/aa/bb.png", "b" * 64, 3)


# Runs


def test_a_run_record_is_overwritten_whole(store: RunStore):
    assert store.read_run("20260101-aaaaaa", Note) is None
    store.write_run("20260101-aaaaaa", Note(text="x" * 100_000))
    store.write_run("20260101-aaaaaa", Note(text="short"))
    assert store.read_run("20260101-aaaaaa", Note) == Note(text="short")


def test_a_reader_never_sees_half_a_run_record(store: RunStore):
    notes = [Note(text=letter * 200_000) for letter in "ab"]
    store.write_run("run", notes[0])
    stop = time.monotonic() + 1

    def write() -> None:
        while time.monotonic() < stop:
            for note in notes:
                store.write_run("run", note)

    reads = 0
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write)
        while not writer.done():
            assert store.read_run("run", Note) in notes
            reads += 1
        writer.result()
    assert reads > 3


def test_runs_are_listed_in_order_and_only_those_with_a_record(store: RunStore):
    assert store.list_runs() == []
    for run_id in ("20260102-bbbbbb", "20260101-aaaaaa"):
        store.write_run(run_id, Note(text=run_id))
    store.write_part("20260103-cccccc", "outcomes", b"no record yet")
    assert store.list_runs() == ["20260101-aaaaaa", "20260102-bbbbbb"]


def test_parts_of_a_run_are_read_by_name_and_replaced_by_name(store: RunStore):
    assert store.read_parts("run") == {}
    store.write_part("run", "shard-1", b"old")
    store.write_part("run", "shard-1", b"one")
    store.write_part("run", "shard-2", b"two")
    store.write_part("run2", "shard-3", b"another run's")
    assert store.read_parts("run") == {"shard-1": b"one", "shard-2": b"two"}


def test_a_report_file_lies_at_its_url(store: RunStore):
    store.write_report_file("run", "pictures/one.png", b"old")
    url = store.write_report_file("run", "pictures/one.png", b"new")
    assert url == store.report_url("run", "pictures/one.png") == f"{store.url}/runs/run/report/pictures/one.png"
    with fsspec.open(url, "rb") as file:
        assert file.read() == b"new"  # pyright: ignore[reportAttributeAccessIssue]


# Names


@pytest.mark.parametrize("name", ["../x", "..", ".", "", "a/b", "a\\b", "/etc", "a\0", "a..b", "x" * 201, "a b", "a\n"])
def test_no_name_leaves_its_folder(tmp_path: Path, name: str):
    store = RunStore(str(tmp_path / "store"))
    attempts = [
        lambda: store.mark_done("image", name, Note(text="")),
        lambda: store.read_marker("image", name, Note),
        lambda: store.drop_marker("image", name),
        lambda: store.put_adapter_file(name, "style.safetensors", b""),
        lambda: store.put_adapter_file("f", name, b""),
        lambda: store.read_payload(f"images/{name}/../x", "", 0),
        lambda: store.write_run(name, Note(text="")),
        lambda: store.write_part("run", name, b""),
        lambda: store.write_report_file("run", f"a/../{name}", b""),
    ]
    for attempt in attempts:
        with pytest.raises(UnsafeUrlError):
            attempt()
    assert list(tmp_path.iterdir()) == []


# Targets


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/x",
        "https://example.org/x",
        "ftp://example.org/x",
        "simplecache::s3://bucket/x",
        "zip://x.zip::file:///tmp/y",
        "s3://",
        "",
        "s3://bucket/../other",
    ],
)
def test_a_store_elsewhere_is_refused(url: str):
    with pytest.raises(UnsafeUrlError):
        RunStore(url)


def test_credentials_in_a_url_are_refused_and_not_repeated():
    with pytest.raises(UnsafeUrlError) as caught:
        RunStore("s3://AKIAKEY:topsecret@bucket/x")
    assert "topsecret" not in str(caught.value)


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_, **__):
        raise ImportError("no gcsfs")

    monkeypatch.setattr(objects, "url_to_fs", refuse)
    with pytest.raises(MissingExtraError, match=r"pairlora\[gcs\]"):
        RunStore("gs://bucket/x")


def test_the_probe_accepts_a_target_that_honours_create_only_and_leaves_nothing(store: RunStore):
    store.probe()
    store.probe(single_writer=True)
    filesystem, root = fsspec.core.url_to_fs(store.url)
    assert [path for path in filesystem.find(root) if filesystem.isfile(path)] == []


class OverwritingFileSystem(MemoryFileSystem):
    """A target that takes a create-only write for an ordinary one."""

    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    protocol = "gs"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("gs://").strip("/")

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        super().pipe_file(path, value)


def test_the_probe_refuses_a_target_that_overwrites(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(_registry, "gs", OverwritingFileSystem)
    store = RunStore("gs://bucket/x")
    with pytest.raises(UnsafeStoreError, match="--single-writer"):
        store.probe()
    store.probe(single_writer=True)
    assert OverwritingFileSystem.store == {}


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    store = RunStore(str(tmp_path / "file" / "store"))
    attempts = [
        store.probe,
        lambda: store.mark_done("image", "abc", Note(text="")),
        lambda: store.put_image(b""),
        lambda: store.read_run("run", Note),
        lambda: store.list_done("image"),
        store.list_runs,
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match=f"cannot (write|read|list) {store.url}/.*NotADirectoryError"):
            attempt()


def test_a_local_root_is_absolute_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for url in ("store", "./store/", "x/../store", f"file://{tmp_path}/store", str(tmp_path / "store")):
        assert RunStore(url).url == str(tmp_path / "store")


def test_a_store_survives_pickling(store: RunStore):
    store.mark_done("image", "abc", Note(text="kept"))
    again = pickle.loads(pickle.dumps(store))
    assert again.url == store.url
    assert again.is_memory == store.url.startswith("memory://")
    assert again.read_marker("image", "abc", Note) == Note(text="kept")


def test_a_killed_writer_leaves_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def die(*_):
        raise KeyboardInterrupt

    store = RunStore(str(tmp_path))
    monkeypatch.setattr(os, "link", die)
    with pytest.raises(KeyboardInterrupt):
        store.mark_done("image", "abc", Note(text=""))
    assert store.list_done("image") == set()
    monkeypatch.undo()
    assert store.mark_done("image", "abc", Note(text=""))


def test_in_memory_no_two_writers_win_however_threads_are_switched(monkeypatch: pytest.MonkeyPatch):
    look = MemoryFileSystem.exists

    def look_slowly(self, path, **kwargs):
        found = look(self, path, **kwargs)
        time.sleep(0.005)
        return found

    monkeypatch.setattr(MemoryFileSystem, "exists", look_slowly)
    assert race(RunStore(f"memory://{uuid.uuid4().hex}"), "abc").count(True) == 1


def refuse_links(*_):
    raise OSError(errno.ENOTSUP, "no links here")


def test_without_links_still_exactly_one_writer_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    replace = os.replace

    def replace_slowly(*paths) -> None:
        time.sleep(0.02)
        replace(*paths)

    monkeypatch.setattr(os, "link", refuse_links)
    monkeypatch.setattr(os, "replace", replace_slowly)
    store = RunStore(str(tmp_path))
    for number in range(5):
        won = race(store, key_of(number))
        assert won.count(True) == 1
        assert store.read_marker("score", key_of(number), Note) == Note(text=f"writer {won.index(True)}")
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_without_links_the_claim_of_a_dead_writer_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = RunStore(str(tmp_path))
    monkeypatch.setattr(os, "link", refuse_links)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: os._exit(9))
        if (child := os.fork()) == 0:
            store.mark_done("image", "abc", Note(text="never"))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert store.list_done("image") == set()
    monkeypatch.setattr(objects, "STALE_CLAIM_SECONDS", 0.2)
    assert store.mark_done("image", "abc", Note(text="second try"))


# S3


@pytest.mark.s3
def test_a_wrong_secret_is_a_store_error_that_does_not_show_it(s3_url: str, monkeypatch: pytest.MonkeyPatch):
    wrong = uuid.uuid4().hex
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
    for store in (RunStore(s3_url), RunStore(s3_url, {"key": os.environ["AWS_ACCESS_KEY_ID"], "secret": wrong})):
        with pytest.raises(StoreError, match=f"cannot write {s3_url}") as caught:
            store.probe()
        assert wrong not in str(caught.value)
        assert wrong not in repr(store)


def test_a_secret_in_the_words_of_a_driver_is_blotted_out(monkeypatch: pytest.MonkeyPatch):
    def tell(*_, **__):
        raise PermissionError("the key hunter22 is wrong")

    monkeypatch.setattr(OverwritingFileSystem, "pipe_file", tell)
    monkeypatch.setitem(_registry, "gs", OverwritingFileSystem)
    store = RunStore("gs://bucket/x", {"token": {"private_key": "hunter22"}})
    with pytest.raises(StoreError, match=r"the key \*\*\* is wrong") as caught:
        store.put_image(b"")
    assert caught.value.__cause__ is None


@pytest.mark.s3
def test_a_missing_bucket_is_a_store_error_and_no_empty_store(s3_url: str):
    store = RunStore("s3://no-such-bucket/x")
    for attempt in (store.probe, lambda: store.read_run("run", Note), lambda: store.list_done("image"), store.list_runs):
        with pytest.raises(StoreError, match="s3://no-such-bucket/x"):
            attempt()


@pytest.mark.s3
def test_puts_to_s3_carry_no_expect_header(s3_url: str):
    sent: list[str | None] = []
    store = RunStore(s3_url)
    session = store._objects._filesystem.session  # pyright: ignore
    session.register("before-send.s3", lambda request, **_: sent.append(request.headers.get("Expect")))
    store.mark_done("image", "abc", Note(text=""))
    store.put_image(b"x" * 100_000)
    assert sent == [None, None]


@pytest.mark.s3
def test_a_put_that_is_accepted_and_never_answered_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "PUT_TIMEOUT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {"endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}", "key": "a-key", "secret": "a-secret"}
        store = RunStore("s3://bucket/x", options)
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"cannot write s3://bucket/x/images/.*TimeoutError"):
            store.put_image(b"")
        assert time.monotonic() - began < 20


@pytest.mark.s3
def test_a_report_in_a_bucket_opens_in_a_browser(s3_url: str):
    url = RunStore(s3_url).write_report_file("run", "index.html", b"<p>")
    assert fsspec.filesystem("s3", use_listings_cache=False).info(url)["ContentType"] == "text/html"
