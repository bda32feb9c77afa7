"""After any number of kills every pair is done, once, with the same scores, and nothing is left behind."""

import hashlib
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from chaos import DEVICES, NIGHT_SECONDS, PAIRS, describe_settings, open_night, read_payloads, read_table, write_studio

from pairlora.bases import load_base
from pairlora.config import RunConfig
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.pipeline import ShardPipeline
from pairlora.execution.runs import close_run, open_run
from pairlora.store.run_store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.s3, pytest.mark.timeout(NIGHT_SECONDS + 600)]


def score_undisturbed(folder: Path, every: int = 4) -> pd.DataFrame:
    """The scores of some pairs of the same manifest, done in this process, on a folder."""
    run = RunConfig.model_validate(describe_settings(folder))
    plan, store = open_run(run), RunStore(run.output.url)
    pipeline = ShardPipeline(run, plan.run_id, load_base(run.base.name), store, Scorer(ClipEncoder("embedded"), None))
    for shard in plan.shards[::every]:
        pipeline.customize_shard(shard)
    return pd.read_parquet(close_run(run, plan, []).table_urls["scores"])


def index_scores(table: pd.DataFrame) -> pd.Series:
    return table.set_index(["pair_id", "image_id", "metric"]).value.sort_index()


def count_repeats(attempts: pd.DataFrame) -> int:
    """Tries at pairs beyond the first one of each; a try that found everything done is none."""
    tries = attempts[attempts.status != "reused"]
    return len(tries) - tries.pair_id.nunique()


def tell(**facts) -> None:
    """The figures of a night, for whoever runs this with -s."""
    sys.stdout.write(json.dumps(facts) + "\n")


def check_store(store: RunStore, pairs: int) -> None:
    """One marker a pair, nothing half written under a final key, and no checkpoint left."""
    assert [len(store.list_done(kind)) for kind in ("adapter", "pair")] == [pairs, pairs]
    assert all(hashlib.sha256(data).hexdigest() in key for key, data in read_payloads(store).items())
    assert store._objects.keys("checkpoints") == []


@pytest.mark.parametrize("kills", [8, pytest.param(25, marks=pytest.mark.chaos)])
def test_a_night_of_kills_loses_nothing_and_repeats_only_what_was_in_flight(kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_studio(tmp_path)
    with open_night(tmp_path, kills, monkeypatch) as night:
        summary = night.pass_through(kills)
        pairs, attempts, scores = (read_table(summary, name) for name in ("pairs", "attempts", "scores"))
        check_store(RunStore(night.url), PAIRS)
    repeats = count_repeats(attempts)
    tell(killed=night.killed, begun=night.begun, tries=len(attempts), repeats=repeats)
    assert (len(night.killed), night.orphans) == (kills, [])
    assert set(pairs.status) == {"done"}
    assert (len(pairs), pairs.trained.sum(), summary["trained"]) == (PAIRS, PAIRS, PAIRS)
    assert repeats <= kills * DEVICES
    undisturbed = index_scores(score_undisturbed(tmp_path))
    disturbed = index_scores(scores).loc[undisturbed.index]
    assert len(undisturbed) > 0
    assert (disturbed - undisturbed).abs().max() < 1e-3


def test_two_runs_of_one_manifest_at_once_train_each_pair_and_seldom_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pairs = 16
    write_studio(tmp_path, pairs)
    with open_night(tmp_path, 0, monkeypatch) as night:
        flows = [night.begin(name) for name in ("one", "other")]
        assert [flow.process.wait(NIGHT_SECONDS) for flow in flows] == [0, 0]
        summaries = [json.loads(flow.summary.read_text()) for flow in flows]
        check_store(RunStore(night.url), pairs)
        attempts = pd.concat(read_table(summary, "attempts") for summary in summaries).drop_duplicates(["shard", "attempt", "pair_id"])
        tables = [read_table(summary, "pairs") for summary in summaries]
    twice = int(attempts.trained.sum()) - pairs
    tell(tries=len(attempts), trained_twice=twice, runs=len({summary["run_id"] for summary in summaries}))
    assert all(len(table) == pairs and set(table.status) <= {"done", "reused"} for table in tables)
    assert twice < pairs / 2
