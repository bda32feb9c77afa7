"""Identities: golden values that a change of results must move, and what does and does not decide a training."""

from typing import Any

import pytest

from pairlora.config import RunConfig, SampleConfig, TrainConfig
from pairlora.identity import (
    ALGORITHM_VERSION,
    describe_profile,
    digest_record,
    fingerprint_training,
    identify_image,
    identify_prefix,
    identify_score,
)
from pairlora.records import Pair, PlannedImage

PAIR = Pair(
    row=1,
    pair_id="fox",
    content="a.png",
    style="b.png",
    content_prompt="a photo of a {identifier} fox",
    style_template="{prompt} in ink",
    identifier="sbu",
)
PLANNED = PlannedImage(prompt="a cat", style_prompt="a cat in ink", seed=3, strength=2.5)


def fingerprint(pair: Pair = PAIR, train: TrainConfig | None = None, **changed: str) -> str:
    digests = {"content_sha256": "c", "style_sha256": "s", "base_digest": "b", "dtype": "float32"} | changed
    return fingerprint_training(pair, train or TrainConfig(), **digests)


def image_id(planned=PLANNED, sample=None, adapter="f"):
    return identify_image(planned, sample or SampleConfig(), fingerprint=adapter, base_digest="b", dtype="float32")


def test_golden_values():
    """Where one of these moves, results of older runs no longer count as done: raise ALGORITHM_VERSION on purpose only."""
    assert ALGORITHM_VERSION == 1
    assert fingerprint() == "fcf578563487e6aa5bc07a715f6f05e80939a3f5497da87ea22e4e0470a13ba9"
    assert image_id() == "90f7a499f116b0d2d07a6674fe09c8ee2ee875d7eddc0deb670e479a8cbc9261"
    assert (
        identify_score("i", PAIR, compared={"truth": None}, encoders={"direction": "clip"})
        == "184b87dd9d0c3f6f274b17720b3a63bbcb3e44af1ec4eda9afb21cd8011db962"
    )


@pytest.mark.parametrize("field", ["content_sha256", "style_sha256", "base_digest", "dtype"])
def test_inputs_decide_a_training(field):
    changed: dict[str, Any] = {field: "other"}
    assert fingerprint(**changed) != fingerprint()


OTHER_VALUES: dict[str, Any] = {"timestep_range": (100, 900), "layers": "attn2"}


def change_setting(field: str) -> Any:
    """Another valid value than a setting's default."""
    if field in OTHER_VALUES:
        return OTHER_VALUES[field]
    default = getattr(TrainConfig(), field)
    if isinstance(default, str):
        return {"joint": "alternating"}[default]
    return 1.0 if default is None else default + 1 if isinstance(default, int) else default * 2


@pytest.mark.parametrize("field", sorted(TrainConfig.model_fields))
def test_every_setting_decides_a_training(field):
    assert fingerprint(train=TrainConfig.model_validate({field: change_setting(field)})) != fingerprint()


@pytest.mark.parametrize("change", [{"pair_id": "x"}, {"row": 9}, {"content": "elsewhere.png"}, {"test_prompts": ("p",)}, {"group": "g"}])
def test_names_places_and_test_prompts_decide_no_training(change):
    assert fingerprint(PAIR.model_copy(update=change)) == fingerprint()


def test_the_identifier_stands_in_training_prompts_alone():
    assert PAIR.training_prompt == "a photo of a sbu fox"
    assert PAIR.plain_prompt == "a photo of a fox"
    assert PAIR.prompts == ("a photo of a fox",)
    assert fingerprint(PAIR.model_copy(update={"identifier": "sks"})) != fingerprint()


def test_an_unstyled_picture_depends_on_no_adapter():
    unstyled = PLANNED.model_copy(update={"strength": 0.0})
    assert image_id(unstyled, adapter="f") == image_id(unstyled, adapter="g")
    assert image_id(unstyled.model_copy(update={"style_prompt": "other"})) == image_id(unstyled)
    assert image_id(adapter="f") != image_id(adapter="g")


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 7},
        {"guidance_scale": 2.0},
        {"onset": 500},
        {"size": 512},
        {"scheduler": "DDIMScheduler"},
        {"guidance_interval": (900, 100)},
    ],
)
def test_the_sampler_decides_a_picture(change):
    assert image_id(sample=SampleConfig(**change)) != image_id()


def test_an_approximation_is_named_in_the_profile_where_it_is_used():
    assert describe_profile(SampleConfig()) == "own/50 steps/onset 800/1024 px"
    assert describe_profile(SampleConfig(guidance_interval=(900, 100))).endswith("unconditional row in 900-100 only")


@pytest.mark.parametrize(("interval", "scale"), [((100, 900), 5.0), ((1001, 0), 5.0), ((5, -1), 5.0), ((900, 100), 1.0)])
def test_an_interval_that_makes_no_sense_is_refused(interval, scale):
    with pytest.raises(ValueError, match="guidance_interval"):
        SampleConfig(guidance_interval=interval, guidance_scale=scale)


@pytest.mark.parametrize(
    ("prompt", "seed", "change"), [("b", 1, {}), ("a", 2, {}), ("a", 1, {"steps": 9}), ("a", 1, {"guidance_scale": 2.0})]
)
def test_prompt_seed_and_sampler_decide_the_latents_at_the_onset(prompt, seed, change):
    places = {"base_digest": "b", "dtype": "float32"}
    one = identify_prefix("a", 1, SampleConfig(), **places)
    assert identify_prefix(prompt, seed, SampleConfig(**change), **places) != one
    assert identify_prefix("a", 1, SampleConfig(relative_strengths=(0.5,), batch_rows=3), **places) == one


def test_rows_of_a_forward_decide_no_picture():
    assert image_id(sample=SampleConfig(batch_rows=99)) == image_id()


def test_canonical_json_ignores_the_order_of_keys_and_refuses_nan():
    assert digest_record({"a": 1, "b": 2}) == digest_record({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_record({"a": float("nan")})


def test_presets_fill_what_is_left_open_and_no_more():
    run = RunConfig.model_validate({"manifest": "m.csv", "output": {"url": "o"}, "base": {"name": "embedded"}, "train": {"steps": 80}})
    assert run.train.steps == 80
    assert run.train.resolution == 64
    assert RunConfig.model_validate({"manifest": "m.csv", "output": {"url": "o"}, "base": {"name": "sdxl"}}).train == TrainConfig()


def test_strength_zero_is_always_drawn():
    assert SampleConfig(guidance_scale=4.0, relative_strengths=(1.0, 0.5)).strengths == (0.0, 2.0, 4.0)
