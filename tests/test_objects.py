"""Targets of the store: what is refused, what is probed, and how each kind of target creates an object once."""

import errno
import os
import pickle
import socket
import time
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from store_notes import Note, key_of, race

from pairlora.errors import MissingExtraError, StoreError, UnsafeStoreError, UnsafeUrlError
from pairlora.store import objects
from pairlora.store.run_store import RunStore


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
def test_a_put_that_is_accepted_and_never_answered_ends():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = {"endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}", "key": "a-key", "secret": "a-secret"}
        store = RunStore("s3://bucket/x", options, timeout=1)
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"cannot write s3://bucket/x/images/.*TimeoutError"):
            store.put_image(b"")
        assert time.monotonic() - began < 20


@pytest.mark.s3
def test_a_report_in_a_bucket_opens_in_a_browser(s3_url: str):
    url = RunStore(s3_url).write_report_file("run", "index.html", b"<p>")
    assert fsspec.filesystem("s3", use_listings_cache=False).info(url)["ContentType"] == "text/html"
