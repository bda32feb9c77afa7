"""From manifest to shards: identities, packs, resumed runs, and pictures that cannot be read."""

import json
from datetime import UTC, datetime

import pytest
from tiny_base import make_picture

from pairlora.config import RunConfig
from pairlora.errors import ConfigError, ManifestError
from pairlora.execution.planning import plan_images, plan_run
from pairlora.execution.runs import open_run
from pairlora.records import RunRecord
from pairlora.store.run_store import RunStore


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b", "c", "d"):
        make_picture(ord(name), 64).save(tmp_path / f"{name}.png")
    return tmp_path


def write_manifest(folder, *rows):
    basic = {"content_prompt": "a fox", "style_template": "{prompt} in ink", "content": "a.png", "style": "b.png"}
    lines = [json.dumps({"pair_id": f"pair-{index}"} | basic | row) for index, row in enumerate(rows)]
    (folder / "manifest.jsonl").write_text("\n".join(lines))


def make_plan(folder, **execution):
    settings = {"manifest": str(folder / "manifest.jsonl"), "output": {"url": str(folder / "out")}, "execution": execution}
    run = RunConfig.model_validate(settings | {"base": {"name": "embedded"}})
    return run, plan_run(run, RunStore(run.output.url), "base")


def test_pairs_of_one_schedule_share_packs(folder):
    write_manifest(folder, {}, {"style": "c.png"}, {"overrides": {"steps": 80}}, {"style": "d.png"})
    _, plan = make_plan(folder, pack_size=2, shard_packs=1)
    packs = [[job.pair.pair_id for job in pack.jobs] for shard in plan.shards for pack in shard.packs]
    assert packs == [["pair-0", "pair-1"], ["pair-3"], ["pair-2"]]
    assert len(plan.shards) == 3


def test_equal_inputs_have_equal_fingerprints_and_overrides_change_them(folder):
    write_manifest(folder, {}, {}, {"overrides": {"style_rank": 8}})
    _, plan = make_plan(folder)
    first, second, third = sorted(plan.jobs, key=lambda job: job.pair.pair_id)
    assert first.fingerprint == second.fingerprint != third.fingerprint
    assert third.train["style_rank"] == 8


def test_a_missing_picture_is_an_outcome_and_the_others_are_planned(folder):
    write_manifest(folder, {"content": "nowhere.png"}, {})
    _, plan = make_plan(folder)
    (lost,) = plan.unplanned
    assert (lost.pair_id, lost.status, lost.error_class) == ("pair-0", "failed", "MissingPictureError")
    assert "nowhere.png" in lost.error_message
    assert [job.pair.pair_id for job in plan.jobs] == ["pair-1"]


def test_bad_rows_are_refused_together_or_reported_as_invalid(folder):
    write_manifest(folder, {"content_prompt": ""}, {"pair_id": "../x"}, {})
    with pytest.raises(ManifestError) as refused:
        make_plan(folder)
    assert refused.value.count == 2
    _, plan = make_plan(folder, skip_bad_rows=True)
    assert [outcome.status for outcome in plan.unplanned] == ["invalid", "invalid"]
    assert len(plan.jobs) == 1


def test_an_unfinished_run_goes_on_and_a_finished_one_does_not(folder):
    write_manifest(folder, {})
    run, plan = make_plan(folder)
    store = RunStore(run.output.url)
    record = RunRecord(
        run_id=plan.run_id,
        manifest=plan.manifest,
        manifest_sha256=plan.manifest_sha256,
        config=run.model_dump(mode="json"),
        versions={},
        started_at=datetime(2020, 1, 1, tzinfo=UTC),
    )
    older = f"20200101T000000Z-{plan.run_id.rpartition('-')[2]}"
    store.write_run(older, record)
    assert make_plan(folder)[1].run_id == older
    store.write_run(older, record.model_copy(update={"finished_at": datetime(2020, 1, 2, tzinfo=UTC)}))
    assert make_plan(folder)[1].run_id != older


def test_a_run_of_another_configuration_is_not_taken_up(folder):
    write_manifest(folder, {})
    run, plan = make_plan(folder)
    changed = run.model_copy(update={"sample": run.sample.model_copy(update={"steps": 3})})
    assert plan_run(changed, RunStore(run.output.url), "base").run_id.rpartition("-")[2] != plan.run_id.rpartition("-")[2]


def test_a_named_run_of_another_manifest_is_refused(folder):
    write_manifest(folder, {})
    run, plan = make_plan(folder)
    record = {"run_id": "night", "manifest": "other.csv", "manifest_sha256": "0" * 64, "config": {}, "versions": {}}
    RunStore(run.output.url).write_run("night", RunRecord.model_validate(record | {"started_at": plan.started_at}))
    named = run.model_copy(update={"output": run.output.model_copy(update={"run_id": "night"})})
    with pytest.raises(ConfigError, match="another manifest"):
        plan_run(named, RunStore(run.output.url), "base")


def test_every_prompt_seed_and_strength_is_drawn(folder):
    write_manifest(folder, {"test_prompts": ["a cat", "a dog"]})
    run, plan = make_plan(folder)
    images = plan_images(plan.jobs[0].pair, run)
    assert len(images) == 2 * len(run.sample.seeds) * (len(run.sample.strengths) + len(run.sample.lora_weights))
    assert {image.style_prompt for image in images} == {"a cat in ink", "a dog in ink"}


def test_a_run_begins_by_removing_checkpoints_that_a_kill_left_behind(folder):
    write_manifest(folder, {})
    run, plan = make_plan(folder)
    store, fingerprint = RunStore(run.output.url), plan.jobs[0].fingerprint
    for name in (fingerprint, "other"):
        store.put_checkpoint(name, b"data")
    store.mark_done("adapter", fingerprint, RunRecord.model_construct(run_id="any"))
    assert len(open_run(run).shards) == 1
    assert store.read_checkpoint(fingerprint) is None
    assert store.read_checkpoint("other") == b"data"
