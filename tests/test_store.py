"""The laws of the store, on every kind of target."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from store_notes import WRITERS, Note, key_of, race

from pairlora.errors import CorruptObjectError, UnsafeUrlError
from pairlora.store.run_store import RunStore, StoredObject


def overwrite(store: RunStore, key: str, data: bytes) -> None:
    """Damage an object behind the store's back."""
    if "://" not in store.url:
        Path(store.url, key).write_bytes(data)
    else:
        with fsspec.open(f"{store.url}/{key}", "wb") as file:
            file.write(data)  # pyright: ignore[reportAttributeAccessIssue]


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
