"""Digests of pictures that are remembered between plans: what is the same is not read again, what was changed is noticed."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import use_s3
from fault_proxy import running_proxy

from pairlora.execution.digests import digest_pictures
from pairlora.records import Pair
from pairlora.store import stamps
from pairlora.store.run_store import RunStore

MANIFEST = "pairs.csv"


def make_pair(content: str, style: str) -> Pair:
    return Pair(row=1, pair_id="fox", content=content, style=style, content_prompt="a fox", style_template="{prompt} in ink")


def write(folder: Path, name: str, data: bytes) -> str:
    """A file that was written some time ago, as far as its content's time tells."""
    path = folder / name
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9))
    return str(path)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch):
    """Files count as settled as soon as they are written."""
    monkeypatch.setattr(stamps, "SETTLED_SECONDS", -1.0)


def digest(store: RunStore, *pairs: Pair, remember: bool = True, max_bytes: int = 1000):
    urls = [url for pair in pairs for url in (pair.content, pair.style, *pair.truth.values())]
    return digest_pictures(store, MANIFEST, urls, max_bytes, remember=remember)


def test_a_picture_is_read_once_and_again_when_it_was_changed(store, tmp_path, settled):
    pair = make_pair(write(tmp_path, "a.png", b"first"), write(tmp_path, "b.png", b"other"))
    first, again = digest(store, pair), digest(store, pair)
    assert (first.remembered, again.remembered) == (0, 2)
    assert first.found == again.found
    write(tmp_path, "a.png", b"secnd")  # of the same length, and with the same time of change
    changed = digest(store, pair)
    assert changed.remembered == 1
    assert changed[pair.content] != first[pair.content]
    assert digest(store, pair).found == changed.found


def test_a_file_that_was_written_just_now_is_not_trusted_to_stay(store, tmp_path):
    pair = make_pair(write(tmp_path, "a.png", b"first"), write(tmp_path, "b.png", b"other"))
    digest(store, pair)
    assert digest(store, pair).remembered == 0


def test_planning_without_a_run_leaves_nothing_behind(store, tmp_path, settled):
    pair = make_pair(write(tmp_path, "a.png", b"first"), write(tmp_path, "b.png", b"other"))
    digest(store, pair, remember=False)
    assert store._objects.keys("digests") == []


def test_what_is_wrong_with_a_picture_is_never_remembered(store, tmp_path, settled):
    pair = make_pair(str(tmp_path / "a.png"), write(tmp_path, "b.png", b"x" * 500))
    digest(store, pair)
    assert type(digest(store, pair).found[pair.content]).__name__ == "MissingPictureError"
    assert type(digest(store, pair, max_bytes=100).found[pair.style]).__name__ == "PictureTooLargeError"
    write(tmp_path, "a.png", b"there now")
    assert isinstance(digest(store, pair).found[pair.content], str)


def test_damaged_memory_costs_a_reading_and_nothing_else(store, tmp_path, settled, caplog):
    pair = make_pair(write(tmp_path, "a.png", b"first"), write(tmp_path, "b.png", b"other"))
    first = digest(store, pair)
    (key,) = store._objects.keys("digests")
    store._objects.write(key, b"no parquet")
    again = digest(store, pair)
    assert (again.found, again.remembered) == (first.found, 0)
    assert "cannot be read" in caplog.text


@pytest.mark.s3
@pytest.mark.parametrize("count", [3, 30])
def test_a_bucket_is_asked_for_tags_and_not_for_pictures_a_second_time(s3_url, s3_server, monkeypatch, count):
    with running_proxy(s3_server.endpoint) as proxy:
        use_s3(replace(s3_server, endpoint=proxy.endpoint), monkeypatch)
        store, pictures = RunStore(f"{s3_url}/store"), RunStore(f"{s3_url}/in")
        for number in range(count):
            pictures._objects.write(f"shots/{number}.png", b"%d" % number)
        urls = [f"{s3_url}/in/shots/{number}.png" for number in range(count)]
        pairs = [make_pair(url, url) for url in urls]
        first = digest(store, *pairs)
        pictures._objects.write("shots/0.png", b"x")
        proxy.requests.clear()
        again = digest(store, *pairs)
        assert (first.remembered, again.remembered) == (0, count - 1)
        assert again[urls[0]] != first[urls[0]]
        read = [line for line in proxy.requests if line.startswith("GET ") and "/shots/" in line and "list-type" not in line]
        assert len(read) == 1
        if count > stamps.LISTED_PICTURES:
            assert len(proxy.requests) < count
