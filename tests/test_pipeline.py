"""What a shard does: every pair is done or says why, neighbours are unharmed, and what the store holds is not done again."""

import json
import re
import weakref
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_base import SAMPLE, TRAIN, make_base, make_picture

from pairlora.bases.reconstruction import reconstruct
from pairlora.config import RunConfig
from pairlora.errors import StoppedError
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.evaluation.metrics import truth_ssim
from pairlora.evaluation.scoring import Scorer, fit_truth
from pairlora.execution.finished import Finished, find_finished
from pairlora.execution.forgetting import digest_asset, find_derived, forget_derived
from pairlora.execution.pipeline import ShardPipeline
from pairlora.execution.planning import plan_run
from pairlora.execution.progress import Listener, ignore
from pairlora.records import AdapterRecord, ImageRecord, ImageReference, Outcome, ScoreRecord
from pairlora.store.parts import decode_records
from pairlora.store.run_store import RunStore

PROMPTS = ["a flat icon of a cat", "a flat icon of a dog"]


class Studio:
    """A folder with pictures, a store, and a pipeline on the tiny base."""

    def __init__(self, folder: Path, scorer: Scorer):
        self.folder = folder
        self.scorer = scorer
        self.base = make_base(torch.float32)
        self.store = RunStore(str(folder / "out"))
        self.listener: Listener = ignore
        self.tries = 0
        for seed in range(6):
            make_picture(seed, 64).save(folder / f"{seed}.png")

    def run(self, *rows: dict, between: Callable[[], object] = lambda: None, **settings) -> dict[str, Outcome]:
        """Do a manifest of these rows; outcomes by pair. `between` is called after planning."""
        basic = {
            "content_prompt": "a fox",
            "style_template": "{prompt} in ink",
            "content": "0.png",
            "style": "1.png",
            "test_prompts": PROMPTS,
        }
        lines = [json.dumps({"pair_id": f"pair-{index}"} | basic | row) for index, row in enumerate(rows)]
        manifest = self.folder / "manifest.jsonl"
        manifest.write_text("\n".join(lines))
        config = {"manifest": str(manifest), "output": {"url": self.store.url}, "base": {"name": "tiny"}}
        config |= {"train": TRAIN.model_dump(), "sample": SAMPLE.model_dump(), "evaluate": {"clip": "embedded", "clip_revision": None}}
        run = self.config = RunConfig.model_validate(config | settings)
        plan = plan_run(run, self.store, self.base.digest)
        between()
        pipeline = ShardPipeline(run, plan.run_id, self.base, self.store, self.scorer, self.listener)
        self.run_id = plan.run_id
        self.tries += 1
        return {outcome.pair_id: outcome for shard in plan.shards for outcome in pipeline.customize_shard(shard, str(self.tries))}

    def find_finished(self) -> Finished:
        """What a next run of the same manifest would find done."""
        plan = plan_run(self.config, self.store, self.base.digest)
        finished = find_finished(self.store, self.config, plan, self.store.list_done("adapter"))
        assert len(plan.jobs) == len(finished.outcomes) + sum(len(shard.jobs) for shard in finished.leave_out(plan.shards))
        return finished


@pytest.fixture(scope="module")
def scorer():
    return Scorer(ClipEncoder("embedded"), None)


@pytest.fixture
def studio(tmp_path, scorer):
    return Studio(tmp_path, scorer)


def test_a_shard_leaves_adapters_images_and_scores(studio):
    outcomes = studio.run({}, {"style": "2.png"})
    assert [outcome.status for outcome in outcomes.values()] == ["done", "done"]
    assert studio.store.list_done("adapter") == {outcome.fingerprint for outcome in outcomes.values()}
    # two prompts, two seeds, one strength: four styled pictures a pair, and four unstyled ones that both share
    assert len(studio.store.list_done("image")) == 8
    assert len(studio.store.list_done("baseline")) == 4
    assert len(studio.store.list_done("score")) == 16
    assert outcomes["pair-1"].images_reused == 4


def test_pictures_are_compared_with_the_ground_truth_as_the_base_could_draw_it(studio):
    studio.run({"truth": {PROMPTS[0]: "3.png"}})
    with Image.open(studio.folder / "3.png") as picture:
        raw = fit_truth(picture, (SAMPLE.size, SAMPLE.size))
    shown = reconstruct(studio.base, raw)
    scores = studio.store.read_markers("score", studio.store.list_done("score"), ScoreRecord).values()
    images = studio.store.read_markers("image", studio.store.list_done("image"), ImageRecord)
    judged = [(score, images[score.image_id]) for score in scores if score.image_id in images and "truth_ssim" in score.scores]
    assert {image.prompt for _, image in judged} == {PROMPTS[0]}
    for score, image in judged:
        drawn = Image.open(BytesIO(studio.store.read_payload(image.url, image.sha256, image.bytes)))
        assert score.scores["truth_ssim"] == pytest.approx(truth_ssim(drawn, shown), abs=1e-6)
        assert score.scores["truth_ssim"] != pytest.approx(truth_ssim(drawn, raw), abs=1e-6)


def limit_memory(base, most_rows: int) -> list[int]:
    """Let trainings of more rows run out of memory; gives, for each later forward, how many failed ones are still held."""
    predict, failed, held = base.predict, [], []

    def predict_within_limits(latents, *told):
        if torch.is_inference_mode_enabled():
            return predict(latents, *told)
        if len(latents) > most_rows:
            failed.append(weakref.ref(latents))
            raise torch.OutOfMemoryError(f"no memory for {len(latents)} rows")
        if failed:
            held.append(sum(reference() is not None for reference in failed))
        return predict(latents, *told)

    base.predict = predict_within_limits
    return held


def test_a_pack_that_runs_out_of_memory_is_trained_in_halves_once_its_tensors_are_gone(studio):
    held = limit_memory(studio.base, most_rows=2 * TRAIN.draws)
    outcomes = studio.run({}, {"style": "2.png"})
    assert [outcome.status for outcome in outcomes.values()] == ["done", "done"]
    assert held
    assert not any(held)


def test_a_pair_that_fits_into_no_memory_fails_by_name(studio):
    limit_memory(studio.base, most_rows=1)
    outcomes = studio.run({}, {"style": "2.png"})
    assert [outcome.status for outcome in outcomes.values()] == ["failed", "failed"]
    assert all("no memory" in outcome.error_message for outcome in outcomes.values())


def test_the_same_manifest_again_does_nothing(studio):
    first, again = studio.run({}), studio.run({})
    assert first["pair-0"].trained
    assert first["pair-0"].images_drawn == 8
    assert (again["pair-0"].status, again["pair-0"].trained, again["pair-0"].images_drawn) == ("reused", False, 0)


def test_pairs_with_equal_pictures_and_prompts_train_once(studio):
    outcomes = studio.run({}, {"test_prompts": ["a flat icon of a pig"]})
    assert len(studio.store.list_done("adapter")) == 1
    assert outcomes["pair-0"].fingerprint == outcomes["pair-1"].fingerprint


def test_a_new_strength_trains_nothing(studio):
    studio.run({})
    more = studio.run({}, sample=SAMPLE.model_copy(update={"relative_strengths": (0.0, 0.5, 1.0)}).model_dump())
    assert (more["pair-0"].trained, more["pair-0"].images_drawn, more["pair-0"].images_reused) == (False, 4, 8)


def test_the_unstyled_picture_is_scored_against_itself(studio):
    studio.run({})
    parts = studio.store.read_parts(studio.run_id)
    (name,) = [name for name in parts if name.endswith(".images")]
    references = decode_records(parts[name], ImageReference)
    scores = studio.store.read_markers("score", [reference.score_id for reference in references], ScoreRecord)
    unstyled = [scores[reference.score_id].scores for reference in references if reference.strength == 0]
    assert len(unstyled) == 4
    assert all(one["structure_ssim"] == pytest.approx(1.0) and one["direction"] is None for one in unstyled)
    assert all(one["content_leakage"] == pytest.approx(0.0) for one in unstyled)


def break_picture(path: Path, how: str) -> None:
    good = path.read_bytes()
    path.write_bytes({"truncated": good[: len(good) // 2], "text": b"this is no picture", "empty": b""}[how])


@pytest.mark.parametrize(
    ("how", "error"), [("truncated", "CorruptPictureError"), ("text", "NotAPictureError"), ("empty", "EmptyPictureError")]
)
def test_a_broken_picture_costs_its_own_pair(studio, how, error):
    break_picture(studio.folder / "5.png", how)
    outcomes = studio.run({}, {"style": "5.png"}, {"style": "2.png"})
    planned = {pair_id: outcome.status for pair_id, outcome in outcomes.items()}
    assert {pair_id for pair_id, status in planned.items() if status == "done"} == {"pair-0", "pair-2"}
    if how != "empty":  # an empty file is found when the run is planned
        assert outcomes["pair-1"].error_class == error
        assert "5.png" in outcomes["pair-1"].error_message


def test_a_picture_that_is_forgotten_after_planning_is_not_trained_on(studio):
    def forget() -> None:
        forget_derived(studio.store, find_derived(studio.store, digest_asset(str(studio.folder / "2.png"))))

    outcomes = studio.run({}, {"style": "2.png"}, between=forget)
    assert outcomes["pair-0"].status == "done"
    assert (outcomes["pair-1"].status, outcomes["pair-1"].error_class) == ("failed", "ForgottenPictureError")
    assert studio.store.list_done("adapter") == {outcomes["pair-0"].fingerprint}


def test_a_rank_larger_than_a_layer_costs_its_own_pair(studio):
    outcomes = studio.run({}, {"overrides": {"style_rank": 30}})
    assert outcomes["pair-0"].status == "done"
    assert outcomes["pair-1"].error_class == "RankError"
    assert "lower one of the ranks" in outcomes["pair-1"].error_message


def test_a_training_that_diverges_is_a_failed_row(studio):
    outcomes = studio.run({}, {"overrides": {"learning_rate": 1e30}})
    assert outcomes["pair-0"].status == "done"
    assert outcomes["pair-1"].error_class == "DivergedError"
    assert "lower learning_rate" in outcomes["pair-1"].error_message
    assert outcomes["pair-1"].fingerprint not in studio.store.list_done("adapter")


def test_a_damaged_adapter_is_trained_again(studio):
    outcome = studio.run({})["pair-0"]
    record = studio.store.read_marker("adapter", outcome.fingerprint, AdapterRecord)
    path = Path(studio.store.url) / record.style_url
    path.write_bytes(path.read_bytes()[:-10])
    assert studio.run({}, {"test_prompts": ["a flat icon of a pig"]})["pair-1"].trained
    assert studio.run({})["pair-0"].status == "reused"


def test_a_damaged_picture_is_drawn_again_by_the_next_run(studio):
    studio.run({})
    image_id = sorted(studio.store.list_done("image"))[0]
    record = studio.store.read_marker("image", image_id, ImageRecord)
    (Path(studio.store.url) / record.url).write_bytes(b"damaged")
    healed = studio.run({})["pair-0"]
    assert (healed.status, healed.images_drawn) == ("done", 1)
    assert (Path(studio.store.url) / record.url).stat().st_size == record.bytes


def test_a_picture_with_other_bytes_of_the_same_size_is_found_when_it_is_looked_at(studio):
    studio.run({})
    image_id = sorted(studio.store.list_done("image"))[0]
    record = studio.store.read_marker("image", image_id, ImageRecord)
    (Path(studio.store.url) / record.url).write_bytes(bytes(record.bytes))
    for marker in (Path(studio.store.url) / "done" / "score").rglob("*.json"):
        marker.unlink()  # as after a change of the encoder: all pictures are looked at again
    assert studio.run({})["pair-0"].error_class == "CorruptObjectError"
    assert studio.run({})["pair-0"].images_drawn == 1


def test_a_picture_that_is_replaced_after_planning_fails_its_pair(studio):
    replaced = studio.run({}, between=lambda: make_picture(99, 64).save(studio.folder / "1.png"))["pair-0"]
    assert replaced.error_class == "PictureError"
    assert "was changed after the run was planned" in replaced.error_message
    assert not studio.store.list_done("adapter")


class StopAfter:
    """A listener that ends the run after a step of the training, and notes which steps were taken."""

    def __init__(self, step=None):
        self.step = step
        self.taken = []

    def __call__(self, event):
        if event.phase == "train":
            self.taken.append(event.done)
            if event.done == self.step:
                raise StoppedError("the run is ending")


def read_adapters(studio):
    records = studio.store.read_markers("adapter", studio.store.list_done("adapter"), AdapterRecord).values()
    return {(record.fingerprint, record.style_sha256, record.content_sha256) for record in records}


def test_a_run_that_is_stopped_in_training_goes_on_and_leaves_the_same_bytes(studio, tmp_path_factory, scorer):
    rows, settings = [{}, {"style": "2.png"}], {"execution": {"checkpoint_seconds": 0}}
    studio.listener = StopAfter(4)
    with pytest.raises(StoppedError):
        studio.run(*rows, **settings)
    assert not studio.store.list_done("adapter")
    studio.listener = StopAfter()
    outcomes = studio.run(*rows, **settings)
    assert studio.listener.taken == [5, 6]
    other = Studio(tmp_path_factory.mktemp("straight"), scorer)
    other.run(*rows)
    assert read_adapters(studio) == read_adapters(other)
    left = [path for path in (Path(studio.store.url) / "checkpoints").rglob("*") if path.is_file()]
    assert left == []
    assert [outcome.status for outcome in outcomes.values()] == ["done", "done"]


def test_packs_whose_size_is_left_to_the_device_train_every_pair(studio):
    rows = [{"style": f"{number}.png"} for number in range(1, 6)]
    outcomes = studio.run(*rows, train=TRAIN.model_copy(update={"draws": 16, "steps": 2}).model_dump(), execution={"pack_size": "auto"})
    assert [outcome.status for outcome in outcomes.values()] == ["done"] * 5
    assert len(studio.store.list_done("adapter")) == 5


def test_pictures_of_the_plain_lora_are_drawn_stored_and_scored_beside_the_guided_ones(studio):
    settings = {"sample": SAMPLE.model_copy(update={"lora_weights": (0.5, 1.0)}).model_dump()}
    assert studio.run({}, **settings)["pair-0"].images_drawn == 16
    references = read_references(studio)
    plain = [one for one in references if one.lora_weight is not None]
    assert {one.lora_weight for one in plain} == {0.5, 1.0}
    assert len(plain) == 8
    images = studio.store.read_markers("image", [one.image_id for one in references], ImageRecord)
    assert len({images[one.image_id].sha256 for one in plain}) == 8
    assert all(images[one.image_id].fingerprint for one in plain)
    scores = studio.store.read_markers("score", [one.score_id for one in plain], ScoreRecord)
    assert all(one.scores["direction"] is not None and one.scores["structure_ssim"] < 1 for one in scores.values())
    assert len(studio.store.list_done("baseline")) == 4
    again = studio.run({}, **settings)["pair-0"]
    assert (again.status, again.images_drawn, again.images_reused) == ("reused", 0, 16)


def test_prompts_that_the_base_cuts_are_flagged(studio):
    studio.run({"test_prompts": ["a cat", "a very long tale " * 30]})
    assert {(one.is_unstyled, one.is_cut) for one in read_references(studio)} == {
        (True, False),
        (True, True),
        (False, False),
        (False, True),
    }
    assert sum(one.is_cut for one in read_references(studio)) == 4


def read_references(studio: Studio) -> list[ImageReference]:
    """What the run shows."""
    parts = studio.store.read_parts(studio.run_id)
    return [one for name, data in parts.items() if name.endswith(".images") for one in decode_records(data, ImageReference)]


# Tries, and what the next run finds


def read_tries(studio: Studio) -> list[Outcome]:
    parts = studio.store.read_parts(studio.run_id)
    return [one for name in sorted(parts) if name.endswith(".outcomes") for one in decode_records(parts[name], Outcome)]


def test_a_try_that_fails_stays_beside_the_one_that_succeeds(studio):
    studio.listener = StopAfter(2)
    with pytest.raises(StoppedError):
        studio.run({})
    studio.listener = ignore
    studio.run({}, output={"url": studio.store.url, "run_id": studio.run_id})
    failed, done = sorted(read_tries(studio), key=lambda one: one.attempt)
    assert (failed.status, failed.error_class, failed.trained) == ("failed", "StoppedError", False)
    assert (done.status, done.trained, done.error_class) == ("done", True, "")
    assert all(one.started_at and one.ended_at for one in (failed, done))


def test_the_log_of_a_shard_names_the_pair_in_every_line(studio):
    studio.run({}, {"style": "2.png", "overrides": {"learning_rate": 1e30}}, {"style": "3.png", "test_prompts": ["a very long tale " * 30]})
    logs = studio.store.read_logs(studio.run_id)
    lines = [line for text in logs.values() for line in text.splitlines()]
    assert all(re.match(r"[-0-9]+ [:,0-9]+ (INFO|WARNING) \[pair-\d(,pair-\d)*\] ", line) for line in lines), lines
    told = {pair: [line for line in lines if f"[pair-{pair}]" in line] for pair in range(3)}
    assert any("trained in" in line for line in told[0])
    assert any("not a finite number" in line for line in told[1])
    assert any("the base reads" in line for line in told[2])


def test_pairs_that_are_done_are_found_without_a_base(studio):
    studio.run({}, {"style": "2.png"})
    finished = studio.find_finished()
    assert sorted(finished.outcomes) == [1, 2]
    assert {outcome.status for outcome in finished.outcomes.values()} == {"reused"}
    shown = {(one.pair_id, one.image_id, one.score_id) for shown in finished.references.values() for one in shown}
    assert shown == {(one.pair_id, one.image_id, one.score_id) for one in read_references(studio)}


def test_a_pair_that_failed_is_not_taken_for_done(studio):
    studio.run({}, {"overrides": {"learning_rate": 1e30}})
    assert sorted(studio.find_finished().outcomes) == [1]


@pytest.mark.parametrize("kind", ["score", "image", "adapter"])
def test_a_pair_that_has_lost_something_is_done_again(studio, kind):
    studio.run({})
    store = studio.store
    if kind == "score":
        store.drop_marker(kind, sorted(store.list_done(kind))[0])
    else:
        model = {"image": ImageRecord, "adapter": AdapterRecord}[kind]
        record = store.read_marker(kind, sorted(store.list_done(kind))[0], model)
        (Path(store.url) / (record.url if kind == "image" else record.style_url)).unlink()
    assert not studio.find_finished().outcomes
    assert not store.list_done("pair")
    assert studio.run({})["pair-0"].error_class == ""
    assert sorted(studio.find_finished().outcomes) == [1]
