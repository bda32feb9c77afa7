"""Retries by class and at one layer: what may succeed is tried again and every try is on record; what cannot is not."""

import asyncio
import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import use_s3
from fault_proxy import running_proxy
from PIL import Image
from prefect.states import Failed
from test_pipeline import Studio, read_tries
from test_workers import make_shard
from tiny_base import TRAIN, make_pipeline

from pairlora import errors
from pairlora.bases.interface import Conditions
from pairlora.bases.sdxl import SDXLBase
from pairlora.errors import NoSpaceError, PairloraError
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.pipeline import LOWER_RATE
from pairlora.execution.planning import plan_run
from pairlora.execution.workers import WorkerPool
from pairlora.records import AdapterRecord, ImageRecord, PlannedJob, RunRecord
from pairlora.report import build_report
from pairlora.store.parts import encode_records
from tasks.policies import is_transient

TOO_HIGH = 2e3
"""A learning rate at which the tiny base diverges, and does not at the lower one."""


@pytest.fixture(scope="module")
def scorer():
    return Scorer(ClipEncoder("embedded"), None)


@pytest.fixture
def studio(tmp_path, scorer):
    return Studio(tmp_path, scorer)


class NarrowBase(SDXLBase):
    """A device whose memory holds so many rows of a forward."""

    most_rows = 4

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions, size: int) -> torch.Tensor:
        if len(latents) > self.most_rows:
            raise torch.OutOfMemoryError(f"{len(latents)} rows do not fit")
        return super().predict(latents, timesteps, conditions, size)


def make_narrow_base() -> NarrowBase:
    return NarrowBase(make_pipeline(torch.float32), name="tiny", digest="tiny")


# Trainings that diverge


def test_a_training_that_diverges_is_tried_once_more_at_a_lower_rate_and_is_to_be_looked_at(studio):
    outcomes = studio.run({}, {"overrides": {"learning_rate": TOO_HIGH}, "style": "2.png"})
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    record = studio.store.read_marker("adapter", outcomes["pair-1"].fingerprint, AdapterRecord)
    assert (record.lowered_rate, record.train["learning_rate"]) == (LOWER_RATE * TOO_HIGH, TOO_HIGH)
    pairs, attempts = report(studio)
    assert pairs.loc["pair-1", "learning_rate"] == LOWER_RATE * TOO_HIGH
    assert (pairs.loc["pair-1", "attempts"], pairs.loc["pair-0", "attempts"]) == (2, 1)
    assert pairs.loc["pair-1", "verdict"] in ("review", "reject")
    assert "diverged at its own learning rate" in pairs.loc["pair-1", "verdict_reasons"][0]
    assert not any("diverged" in reason for reason in pairs.loc["pair-0", "verdict_reasons"])
    tries = attempts.to_dict("records")
    failed, done = sorted((one for one in tries if one["pair_id"] == "pair-1"), key=lambda one: one["started_at"])
    assert (failed["status"], failed["error_class"], done["status"], done["trained"]) == ("failed", "DivergedError", "done", True)


def test_the_second_training_is_that_of_the_lower_rate_alone(studio):
    diverged = studio.run({"overrides": {"learning_rate": TOO_HIGH}}, execution={"checkpoint_seconds": 0})["pair-0"]
    plain = studio.run({"overrides": {"learning_rate": LOWER_RATE * TOO_HIGH}})["pair-0"]
    first, second = (studio.store.read_marker("adapter", one.fingerprint, AdapterRecord) for one in (diverged, plain))
    assert [loss.step for loss in first.losses] == [loss.step for loss in second.losses]
    assert studio.store._objects.keys("checkpoints") == []


def test_a_training_that_diverges_twice_fails_with_both_tries_on_record(studio):
    outcome = studio.run({"overrides": {"learning_rate": 1e30}})["pair-0"]
    assert (outcome.status, outcome.error_class) == ("failed", "DivergedError")
    assert [one.error_class for one in read_tries(studio)] == ["DivergedError", "DivergedError"]


def report(studio) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `pairs`, by pair, and `attempts` of the studio's run."""
    facts = {"manifest": studio.config.manifest, "manifest_sha256": "0" * 64, "versions": {}, "started_at": "2026-01-02T03:04:05Z"}
    record = RunRecord.model_validate({"run_id": studio.run_id, "config": studio.config.model_dump(mode="json"), **facts})
    jobs = plan_run(studio.config, studio.store, studio.base.digest).jobs
    planned = [PlannedJob(pair_id=job.pair.pair_id, fingerprint=job.fingerprint, job=job.model_dump_json()) for job in jobs]
    studio.store.write_part(studio.run_id, "plan", encode_records(planned, PlannedJob))
    urls = build_report(studio.store, record).table_urls
    return pd.read_parquet(urls["pairs"]).set_index("pair_id"), pd.read_parquet(urls["attempts"])


# Too little memory


def test_drawing_that_runs_out_of_memory_goes_on_with_fewer_rows_and_draws_the_same(studio, tmp_path, scorer):
    studio.run({})
    (tmp_path / "narrow").mkdir()
    narrow = Studio(tmp_path / "narrow", scorer)
    narrow.base = make_narrow_base()
    assert narrow.run({})["pair-0"].status == "done"
    wide, drawn = read_pictures(studio), read_pictures(narrow)
    assert drawn.keys() == wide.keys()
    assert max(int(np.abs(picture - drawn[image_id]).max()) for image_id, picture in wide.items()) <= 2


def test_training_that_runs_out_of_memory_goes_on_with_smaller_packs(studio):
    studio.base = make_narrow_base()
    studio.base.most_rows = 2 * TRAIN.draws  # content and style of one pair
    outcomes = studio.run({}, {"style": "2.png"}, {"style": "3.png"}, execution={"pack_size": 4})
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert len(studio.store.list_done("adapter")) == 3


def test_what_does_not_fit_at_all_is_a_failed_row(studio):
    studio.base = make_narrow_base()
    studio.base.most_rows = 0
    assert studio.run({})["pair-0"].error_class == "OutOfMemoryError"


def read_pictures(studio) -> dict[str, np.ndarray]:
    """The styled pictures of the store by image id, in 255ths."""
    records = studio.store.read_markers("image", studio.store.list_done("image"), ImageRecord).values()
    return {one.image_id: np.asarray(Image.open(Path(studio.store.url, one.url)), dtype=np.int16) for one in records}


# Full disks


def fill_disk(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    """Let the disk take so many more files."""
    left, flush = [files], os.fsync

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("files", [0, 8, 20])
def test_a_full_disk_ends_the_shard_with_its_remedy_and_no_pair_is_blamed(studio, monkeypatch, files):
    with monkeypatch.context() as patch, pytest.raises(NoSpaceError, match="free some space"):
        studio.run({}, {"style": "2.png"}, between=lambda: fill_disk(patch, files))
    assert not [one for one in read_tries(studio) if one.error_class not in ("", "NoSpaceError")]
    assert list((studio.folder / "out" / ".tmp").iterdir()) == []
    assert {one.status for one in studio.run({}, {"style": "2.png"}).values()} == {"done"}


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.timeout(900)
def test_a_full_store_ends_the_run_and_shards_that_wait_do_not_begin(tmp_path, s3_url, s3_server, monkeypatch):
    with running_proxy(s3_server.endpoint) as proxy:
        use_s3(replace(s3_server, endpoint=proxy.endpoint), monkeypatch)
        proxy.add("507", "PUT .*parts/", times=10_000)
        shard, run = make_shard(tmp_path, output={"url": s3_url, "timeout_seconds": 20})
        with WorkerPool(["cpu"]) as workers:
            with pytest.raises(NoSpaceError, match=r"Insufficient|full"):
                workers.do_shard("customize_shard", shard, run, "run")
            before = len(proxy.requests)
            with pytest.raises(NoSpaceError):
                workers.do_shard("customize_shard", shard, run, "run")
            assert len(proxy.requests) == before


# Which classes a task is run again for

TRANSIENT = {errors.StoreError, errors.CorruptObjectError, errors.WorkerError}


def list_errors(kind: type[PairloraError] = PairloraError) -> list[type[PairloraError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in list_errors(child))]


@pytest.mark.parametrize("kind", list_errors())
def test_lost_workers_and_stores_alone_are_tried_again(kind):
    error = kind("m.csv", []) if kind is errors.ManifestError else kind("it failed")
    assert asyncio.run(is_transient(None, None, Failed(data=error))) == (kind in TRANSIENT)


def test_an_error_that_nobody_expected_is_not_tried_again():
    assert not asyncio.run(is_transient(None, None, Failed(data=ValueError("a bug"))))
