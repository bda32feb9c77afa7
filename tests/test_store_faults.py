"""A store that fails: each fault is absorbed or is an error with a name, within the time that was given, and nothing is half done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from chaos import describe_settings, write_studio
from conftest import use_s3
from fault_proxy import FaultProxy, Kind, running_proxy
from store_notes import Note, key_of

from pairlora.bases import load_base
from pairlora.config import RunConfig
from pairlora.errors import StoreError
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.pipeline import ShardPipeline
from pairlora.execution.runs import close_run, fail_shard, open_run
from pairlora.records import AdapterRecord
from pairlora.store import urls
from pairlora.store.run_store import RunStore
from pairlora.store.urls import read_bytes

PATIENT_SECONDS, HASTY_SECONDS, SLACK_SECONDS = 8.0, 1.5, 6.0
"""Deadlines of a call for faults that pass and for those that stay, and what a busy machine may add to the latter."""
pytestmark = pytest.mark.s3

PASSING: list[tuple[Kind, str]] = [
    ("503", "adapters"),
    ("ack_lost", "done/adapter"),
    ("reset", "images"),
    ("ack_lost", "done/image"),
    ("reset", "done/score"),
]
READ = {"read": r"GET .*done/", "list": r"GET .*list-type", "measure": r"HEAD .*images/"}


@pytest.fixture
def proxy(s3_url: str, s3_server, monkeypatch: pytest.MonkeyPatch):
    """A proxy that the environment of this process names as the S3 server."""
    with running_proxy(s3_server.endpoint) as proxy:
        use_s3(replace(s3_server, endpoint=proxy.endpoint), monkeypatch)
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy, s3_url: str) -> RunStore:
    RunStore(s3_url).list_runs()  # the first of a process imports its driver, which is no call of the store
    return RunStore(s3_url, timeout=PATIENT_SECONDS)


@contextmanager
def ending_in_time(calls: int = 1) -> Iterator[None]:
    """That what happens within is a StoreError, and comes no later than the deadline of so many hasty calls."""
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"cannot (read|write|list|look at|delete) s3://"):
        yield
    assert time.monotonic() - began < calls * HASTY_SECONDS + SLACK_SECONDS


def hurry(store: RunStore) -> RunStore:
    """The same store with little time for a call."""
    return RunStore(store.url, timeout=HASTY_SECONDS)


def fill(store: RunStore) -> tuple[str, bytes]:
    """A payload and its marker; gives the payload's key and bytes."""
    stored = store.put_image(b"picture" * 1000)
    assert store.mark_done("image", key_of(1), Note(text=stored.key))
    return stored.key, b"picture" * 1000


def call(store: RunStore, action: str, key: str):
    return {
        "read": lambda: store.read_marker("image", key_of(1), Note) == Note(text=key),
        "list": lambda: store.list_done("image") == {key_of(1)},
        "measure": lambda: store.find_whole({key: 7000}) == {key},
    }[action]()


@pytest.mark.parametrize("kind", ["503", "reset", "delay", "truncate"])
@pytest.mark.parametrize("action", READ)
def test_a_fault_that_passes_is_absorbed_by_reading(store: RunStore, proxy: FaultProxy, action: str, kind):
    key, _ = fill(store)
    fault = proxy.add(kind, READ[action], seconds=0.5)
    assert call(store, action, key)
    assert fault.struck == 1


@pytest.mark.parametrize("kind", ["503", "reset", "delay", "ack_lost", "ack_hang"])
def test_a_fault_that_passes_is_absorbed_by_writing(store: RunStore, proxy: FaultProxy, kind):
    payload, marker = proxy.add(kind, "PUT .*images/", seconds=0.5), proxy.add(kind, "PUT .*done/", seconds=0.5)
    stored = store.put_image(b"picture")
    made = store.mark_done("image", key_of(1), Note(text="kept"))
    # where the answer was lost, the driver asks again and meets its own object: somebody made it, and that is all that counts
    assert made or kind in ("ack_lost", "ack_hang")
    assert (payload.struck, marker.struck) == (1, 1)
    assert store.read_payload(stored.key, stored.sha256, stored.bytes) == b"picture"
    assert store.read_marker("image", key_of(1), Note) == Note(text="kept")


@pytest.mark.parametrize(
    ("action", "kind"),
    [("read", "503"), ("read", "reset"), ("read", "hang"), ("read", "truncate"), ("list", "503"), ("list", "hang"), ("measure", "hang")],
)
def test_a_fault_that_stays_is_a_store_error_in_time(store: RunStore, proxy: FaultProxy, action: str, kind):
    key, _ = fill(store)
    proxy.add(kind, READ[action], times=1000)
    with ending_in_time():
        call(hurry(store), action, key)


@pytest.mark.parametrize("kind", ["503", "reset", "hang", "ack_hang"])
def test_a_write_that_never_succeeds_is_a_store_error_in_time(store: RunStore, proxy: FaultProxy, kind):
    proxy.add(kind, "PUT .*adapters/", times=1000)
    with ending_in_time():
        hurry(store).put_adapter_file("f" * 64, "style.safetensors", b"x" * 300_000)
    if kind != "ack_hang":  # there the server has it, whole and without a marker
        assert store._objects.keys("adapters") == []


@pytest.mark.parametrize("pattern", ["DELETE ", "HEAD .*run.json"])
def test_removing_and_looking_for_objects_end_too(store: RunStore, proxy: FaultProxy, pattern: str):
    fill(store)
    store.write_run("run", Note(text=""))
    proxy.add("hang", pattern, times=1000)
    with ending_in_time():
        if pattern == "DELETE ":
            hurry(store).drop_marker("image", key_of(1))
        else:
            hurry(store).list_runs()


def test_a_shard_on_a_store_that_fails_now_and_then_is_done_and_one_on_a_store_that_stays_down_says_why(
    store: RunStore, proxy: FaultProxy, tmp_path: Path
):
    write_studio(tmp_path, 2)
    output = {"url": store.url, "timeout_seconds": PATIENT_SECONDS}
    run = RunConfig.model_validate(describe_settings(tmp_path) | {"output": output})
    plan, scorer = open_run(run), Scorer(ClipEncoder("embedded"), None)
    pipeline = ShardPipeline(run, plan.run_id, load_base(run.base.name), store, scorer)
    faults = [proxy.add(kind, f"PUT .*{place}/") for kind, place in PASSING]
    pipeline.customize_shard(plan.shards[0])
    assert [fault.struck for fault in faults] == [1] * len(faults)
    proxy.add("503", "PUT .*adapters/", times=1000)
    with pytest.raises(StoreError, match="adapters/") as caught:
        pipeline.customize_shard(plan.shards[1])
    summary = close_run(run, plan, fail_shard(plan.shards[1], caught.value))
    assert (summary.counts, summary.failed[0].error_class) == ({"done": 1, "failed": 1}, "StoreError")
    assert store.read_payload(*locate_style(store, plan.shards[0].jobs[0].fingerprint))
    assert plan.shards[1].jobs[0].fingerprint not in store.list_done("adapter")


def locate_style(store: RunStore, fingerprint: str) -> tuple[str, str, int]:
    record = store.read_marker("adapter", fingerprint, AdapterRecord)
    assert record is not None
    return record.style_url, record.style_sha256, record.style_bytes


def test_the_probe_is_not_deceived_by_a_lost_answer(store: RunStore, proxy: FaultProxy):
    proxy.add("ack_lost", r"PUT .*\.tmp/probe")
    store.probe()
    assert store._objects.keys(".tmp") == []


def test_a_decision_whose_answer_was_lost_is_kept_once(store: RunStore, proxy: FaultProxy):
    proxy.add("ack_lost", "PUT .*reviews/")
    store.add_review("f" * 64, "20260101-abc", Note(text="accept"))
    assert store.read_reviews(["f" * 64], Note) == [Note(text="accept")]


def test_a_picture_of_a_manifest_is_read_through_faults_that_pass(store: RunStore, proxy: FaultProxy):
    key, data = fill(store)
    faults = [proxy.add(kind, f"GET .*{key}") for kind in ("503", "reset", "truncate")]
    assert read_bytes(store.url_of(key), 10_000) == data
    assert [fault.struck for fault in faults] == [1, 1, 1]


def test_a_picture_of_a_manifest_that_hangs_is_a_store_error_in_time(store: RunStore, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch):
    key, data = fill(store)
    assert read_bytes(store.url_of(key), 10_000) == data
    monkeypatch.setattr(urls, "TIMEOUT_SECONDS", HASTY_SECONDS)
    proxy.add("hang", f"GET .*{key}", times=1000)
    with ending_in_time(calls=2):
        read_bytes(store.url_of(key), 10_000)
