"""The quality benchmark: curves and areas in closed form, baselines that learn and leave the base alone, arms that are done once."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_base import SAMPLE, TRAIN, make_base, make_picture

from benchmarks import choose_strength
from benchmarks.quality import search
from benchmarks.quality.arms import Workbench, run_arm, tabulate_pictures
from benchmarks.quality.curves import measure_area, measure_gain, trace_envelope
from benchmarks.quality.experiment import Stopwatch
from benchmarks.quality.figure import draw_figure
from benchmarks.quality.plain_lora import train_free
from benchmarks.quality.protocol import (
    ARMS,
    DEFAULT,
    FULL,
    MORE_SUBJECTS,
    RELATIVE_STRENGTHS,
    SUBJECTS,
    TESTS,
    TRUTHS,
    UNKNOWN,
    UNKNOWN_SUBJECTS,
    UNKNOWN_VALIDATION_SUBJECTS,
    VALIDATION_SUBJECTS,
    VALIDATION_TESTS,
    Arm,
    Extent,
    choose_tests,
    group_arms,
)
from benchmarks.quality.results import average_areas, average_pairs, compare_areas, find_range, measure_areas
from benchmarks.quality.sheets import CELL, GAP, HEAD, draw_sheet, read_truths
from benchmarks.quality.tables import write_area_table, write_group_table, write_side_table
from benchmarks.quality.transfer import restyle
from embedded_base.contents import CONTENTS
from pairlora.adapters import Role
from pairlora.adapters.masters import store_master
from pairlora.evaluation.encoders import ClipEncoder, PerceptualEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.pipeline import style_attached
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm
from pairlora.store.run_store import RunStore
from pairlora.training.packs import TrainingPair

PROMPT = "a flat icon of a fox"


# Curves


def test_the_area_below_a_straight_line_is_half_its_end():
    assert measure_area([0.5], [10.0], lowest=0.5) == pytest.approx(5.0)


def test_an_envelope_forgets_what_a_stronger_setting_loses_again():
    levels = np.array([0.4, 0.6, 0.8, 1.0])
    assert trace_envelope([0.8, 0.4], [10.0, -20.0], levels) == pytest.approx([10.0, 10.0, 10.0, 0.0])
    assert trace_envelope([0.6, 0.9], [10.0, 0.0], levels) == pytest.approx([10.0, 10.0, 5.0, 0.0])  # a curve may turn back


def test_an_arm_that_gives_up_no_more_structure_goes_on_level():
    assert trace_envelope([0.9], [4.0], np.array([0.2, 0.9])) == pytest.approx([4.0, 4.0])


def test_nobody_is_worse_than_the_unstyled_picture():
    assert measure_area([0.7, 0.5], [-3.0, -9.0], lowest=0.5) == 0


def test_a_gain_is_the_share_of_the_way_to_the_truth():
    assert measure_gain(0.9, unstyled=0.8) == pytest.approx(50)
    assert measure_gain(0.7, unstyled=0.8) == pytest.approx(-50)


def make_table(gains: dict[str, float], lowest: float = 0.5) -> pd.DataFrame:
    """Pictures of arms that go straight to structure `lowest` and to a share of the way to the truth; pair k gains k per cent more."""
    rows = []
    for arm, gain in gains.items():
        for pair in range(6):
            for setting in (0.0, 0.5, 1.0):
                similarity = 0.6 + 0.4 * setting * (gain + pair) / 100
                truths = dict.fromkeys(("truth_perceptual_similarity", "truth_similarity", "truth_ssim"), similarity)
                head = {"arm": arm, "style": "ink", "pair_id": f"pair-{pair}", "prompt": PROMPT, "related": True, "seed": 0, "url": ""}
                values = {"setting": setting, "structure_ssim": 1 - setting * (1 - lowest), "spread": 0.1}
                rows.append(head | values | truths)
    return pd.DataFrame(rows)


def test_a_difference_that_all_pairs_share_has_an_interval_without_width():
    means = average_pairs(make_table({"ours": 30.0, "style-only": 10.0}))
    areas = measure_areas(means, {"ink": 0.5}, "truth_perceptual_similarity")
    found = compare_areas(areas, "ours", "style-only", "ink")
    assert [found.value, found.low, found.high] == pytest.approx([10] * 3, abs=1e-6)
    assert found.pairs == 6
    alone = average_areas(areas, "ours")
    assert alone.low < alone.value < alone.high


def test_the_common_range_ends_where_the_mildest_trained_arm_does():
    table = pd.concat([make_table({"ours": 1.0}, 0.3), make_table({"mild": 1.0}, 0.6), make_table({"colour": 1.0}, 0.9)])
    arms = [Arm("ours", ""), Arm("mild", ""), Arm("colour", "", training="none")]
    assert find_range(average_pairs(table), arms) == {"ink": pytest.approx(0.6)}


# Protocol


def test_no_drawing_is_both_learnt_from_and_tested_on():
    tests = [slug for group in TESTS.values() for slug in group]
    drawings = [*tests, *SUBJECTS, *MORE_SUBJECTS, *UNKNOWN_SUBJECTS, *VALIDATION_SUBJECTS, *UNKNOWN_VALIDATION_SUBJECTS, *VALIDATION_TESTS]
    assert len(drawings) == len(set(drawings))
    demo = [json.loads(line)["pair_id"] for line in Path("examples/fluent/manifest.jsonl").read_text().splitlines()]
    assert not {name.removesuffix("-gradient").removesuffix("-high-contrast") for name in demo} & {*tests, *SUBJECTS, *MORE_SUBJECTS}


def test_what_is_called_unknown_was_never_drawn_by_the_base_and_all_else_was():
    assert not {*UNKNOWN_SUBJECTS, *UNKNOWN_VALIDATION_SUBJECTS} & set(CONTENTS)
    assert {*SUBJECTS, *MORE_SUBJECTS, *VALIDATION_SUBJECTS} <= set(CONTENTS)


def test_a_subject_is_tested_on_its_group_and_on_four_others():
    for group in TESTS:
        same, others = choose_tests(group)
        found = [name for name, slugs in TESTS.items() for slug in others if slug in slugs]
        assert same == TESTS[group]
        assert len(set(found)) == 4
        assert group not in found


def test_arms_that_share_adapters_are_one_share_of_the_work():
    shares = [{arm.name for arm in arms} for arms in group_arms(ARMS).values()]
    assert {"ours", "ours-weight", "onset-off"} in shares
    assert {"style-only", "style-only-weight"} in shares
    assert sum(map(len, shares)) == len(ARMS)


def test_a_run_is_timed_with_all_its_calls_a_repetition_adds_nothing_and_a_call_that_was_cut_off_makes_the_time_unknown(tmp_path):
    stopwatch = Stopwatch(tmp_path / "minutes.json")

    def call(minutes: float, made: int) -> float | None:
        stopwatch.begin()
        return stopwatch.end(minutes, made)

    assert [call(1.0, 0), call(30.0, 5), call(20.0, 3), call(1.0, 0)] == [None, 30, 50, 50]
    stopwatch.begin()  # and cut off
    assert [call(10.0, 2), call(1.0, 0)] == [None, None]


def test_no_drawing_of_the_rules_is_in_the_demo_or_the_benchmark():
    tests = {slug for group in TESTS.values() for slug in group}
    demo = Path("examples/fluent/manifest.jsonl").read_text()
    for slug in (*VALIDATION_SUBJECTS, *choose_strength.TESTS):
        assert slug not in {*tests, *SUBJECTS, *MORE_SUBJECTS}
        assert f"/{slug}-" not in demo


# Colours


@pytest.mark.parametrize("name", ["colour", "histogram"])
def test_a_transfer_of_nothing_leaves_the_picture_and_a_whole_one_has_the_styles_mean(name):
    picture, style = make_picture(1), make_picture(2)
    assert restyle(name, picture, style, 0.0).tobytes() == picture.tobytes()
    whole = np.asarray(restyle(name, picture, style, 1.0), dtype=float)
    before, wanted = (np.asarray(one, dtype=float).mean(axis=(0, 1)) for one in (picture, style))
    assert np.abs(whole.mean(axis=(0, 1)) - wanted).max() < 0.3 * np.abs(before - wanted).max()


# The baselines' training


def describe_pair() -> TrainingPair:
    return TrainingPair("fox", make_picture(1), make_picture(2), PROMPT, f"{PROMPT}, in ink")


@pytest.mark.parametrize("style_only", [False, True])
def test_a_plain_training_learns_its_own_inputs_leaves_the_base_as_it_was_and_can_be_stored(style_only, tmp_path):
    base = make_base(torch.float32)
    before = {name: values.clone() for name, values in base.denoiser.state_dict().items()}
    names = base.attention_projections()
    trained = train_free(base, describe_pair(), TRAIN, style_only=style_only)
    after = base.denoiser.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert base.attention_projections() == names
    assert trained.matrices[Role.STYLE].keys() == set(names)
    assert any(b.abs().max() > 0 for _, b in trained.matrices[Role.STYLE].values())
    moved = any(b.abs().max() > 0 for _, b in trained.matrices[Role.CONTENT].values())
    assert moved is not style_only
    store_master(RunStore(str(tmp_path)), "f" * 64, trained.matrices, {role: {} for role in Role}, "unet")  # reads it back itself


def test_a_plain_lora_is_drawn_as_the_weights_that_it_means():
    """Adding B A to the frozen weights themselves gives the styled prediction, and so, at strength = guidance scale = 1, the picture."""
    base = make_base(torch.float32)
    style = train_free(base, describe_pair(), TRAIN.model_copy(update={"learning_rate": 0.1}), style_only=True).matrices[Role.STYLE]
    sample = SAMPLE.model_copy(update={"guidance_scale": 1.0, "onset": 1000})
    with style_attached(base, style) as adapters:
        drawn = Sampler(base, adapters, sample).draw_latents([ImageRequest(PROMPT, 0, (StyleTerm(0, f"{PROMPT}, in ink", 1.0),))])
    plain = Sampler(base, None, sample).draw_latents([ImageRequest(f"{PROMPT}, in ink", 0)])
    with torch.no_grad():
        for name, (a, b) in style.items():
            base.denoiser.get_submodule(name).weight += b @ a
    merged = Sampler(base, None, sample).draw_latents([ImageRequest(f"{PROMPT}, in ink", 0)])
    assert (merged - plain).abs().max() > 1e-3
    assert torch.allclose(drawn, merged, atol=1e-4)


# Arms


SETTINGS = {"train": TRAIN.model_dump(), "sample": {**SAMPLE.model_dump(exclude={"relative_strengths", "seeds", "lora_weights"})}}
SETTINGS["evaluate"] = {"clip": "embedded", "clip_revision": None, "perceptual": True}
TINY_ARMS = (
    Arm("ours", "", settings=SETTINGS),
    Arm("style-only-weight", "", training="style-only", by_weight=True, settings=SETTINGS),
    Arm("colour-transfer", "", training="none", transfer="colour", settings=SETTINGS),
    Arm("words", "", training="none", settings=SETTINGS),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench(
        make_base(torch.float32), "tiny", Scorer(ClipEncoder("embedded"), PerceptualEncoder()), tmp_path_factory.mktemp("quality")
    )


@pytest.fixture(scope="module")
def manifest(bench: Workbench) -> Path:
    for seed in range(3):
        make_picture(seed, 64).save(bench.folder / f"{seed}.png")
    row = {"pair_id": "fox-ink", "content": "0.png", "style": "1.png", "content_prompt": PROMPT, "style_template": "{prompt}, in ink"}
    row |= {"test_prompts": ["a flat icon of a cat"], "truth": {"a flat icon of a cat": "2.png"}, "group": "ink"}
    path = bench.folder / "test.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def test_every_kind_of_arm_is_compared_on_the_same_unstyled_pictures_and_done_once(bench, manifest):
    first = {arm.name: run_arm(bench, arm, manifest, (0, 1)) for arm in TINY_ARMS}
    unstyled = {name: {one.record.url for one in pairs[0].images if one.record.is_unstyled} for name, pairs in first.items()}
    assert len(unstyled["ours"]) == 2
    assert all(found == unstyled["ours"] for found in unstyled.values())
    styled = [{one.record.image_id for one in pairs[0].images if not one.record.is_unstyled} for pairs in first.values()]
    assert [len(ids) for ids in styled] == [2 * (len(RELATIVE_STRENGTHS) - 1)] * len(TINY_ARMS)
    assert len(set().union(*styled)) == 2 * (len(RELATIVE_STRENGTHS) - 1) * len(TINY_ARMS)
    again = {arm.name: run_arm(bench, arm, manifest, (0, 1)) for arm in TINY_ARMS}
    assert [pairs[0].outcome.status for pairs in again.values()] == ["reused"] * len(TINY_ARMS)
    assert {name: pairs[0].images for name, pairs in again.items()} == {name: pairs[0].images for name, pairs in first.items()}


def test_the_table_of_pictures_tells_settings_as_shares_of_the_guidance_scale(bench, manifest):
    arm = TINY_ARMS[0]
    table = tabulate_pictures(arm, run_arm(bench, arm, manifest, (0, 1)), SAMPLE.guidance_scale, {"fox": "animals"})
    assert sorted(set(table.setting)) == sorted(RELATIVE_STRENGTHS)
    assert table.truth_perceptual_similarity.notna().all()
    assert set(table.arm) == {"ours"}


def test_strengths_between_those_of_the_protocol_lean_on_what_is_there_and_have_tables_of_their_own(bench, manifest):
    finer = replace(bench, strengths=(0.0, 0.5, 0.9, 1.0))
    for arm in TINY_ARMS[:2]:
        run_arm(bench, arm, manifest, (0, 1))
        (pair,) = run_arm(finer, arm, manifest, (0, 1))
        assert (pair.outcome.trained, pair.outcome.images_drawn) == (False, 2)
        assert len(pair.images) == 2 * 4
    assert (bench.results, finer.results) == (bench.folder, bench.folder / "at-0-0.5-0.9-1")
    assert replace(bench, topic="unknown").results == bench.folder / "unknown"
    assert replace(finer, topic="unknown").results == bench.folder / "unknown-at-0-0.5-0.9-1"


def test_a_learning_rate_is_judged_by_all_measures_of_truth(bench, manifest):
    train = {name: value for name, value in SETTINGS["train"].items() if name != "learning_rate"}
    arm = Arm("ours", "", settings=SETTINGS | {"train": train})
    found = search.search_rates(bench, search.list_tries([arm], (2e-3, 1e-2)), manifest, SAMPLE.guidance_scale, {"fox": "animals"})
    assert found[["style", "arm", "rate"]].to_numpy().tolist() == [["ink", "ours", 2e-3], ["ink", "ours", 1e-2]]
    assert found.area.tolist() == pytest.approx(found[list(TRUTHS)].mean(axis=1).tolist())
    assert (found[list(TRUTHS)].iloc[0] != found[list(TRUTHS)].iloc[1]).any()


def test_each_style_has_the_rate_that_is_best_for_it():
    rows = [("gradient", 1e-3, 5.0), ("gradient", 2e-3, 9.0), ("high-contrast", 1e-3, 7.0), ("high-contrast", 2e-3, 6.0)]
    table = pd.DataFrame(rows, columns=["style", "rate", "area"]).assign(arm="ours")
    assert search.choose_best(table).loc["ours"].to_dict() == {"gradient": 2e-3, "high-contrast": 1e-3}


def test_arms_that_share_adapters_are_tried_once():
    tried = [arm.name for arm, _ in search.list_tries(ARMS, (1e-3,))]
    assert tried == ["ours", "style-only", "not-orthogonal", "late-timesteps", "up-blocks", "alternating"]


@pytest.mark.parametrize("extent", [DEFAULT, FULL, UNKNOWN])
@pytest.mark.parametrize("style", ["gradient", "high-contrast"])
def test_every_trained_arm_has_a_searched_rate_for_each_style(style: str, extent: Extent):
    arms = [arm for arm in ARMS if arm.name in extent.arms]
    rates = {arm.name: extent.choose_rate("embedded", arm, style) for arm in arms}
    assert {name for name, rate in rates.items() if rate is None} == {arm.name for arm in arms if not arm.is_trained}
    assert {extent.choose_rate("sdxl", arm, style) for arm in arms} == {None}
    for group in group_arms(arms).values():
        assert len({rates[arm.name] for arm in group}) == 1


def test_an_arm_without_a_searched_rate_is_not_run_at_another():
    (arm,) = (arm for arm in ARMS if arm.name == "up-blocks")
    with pytest.raises(ValueError, match="up-blocks has no learning rate for unknown subjects"):
        UNKNOWN.choose_rate("embedded", arm, "gradient")


def test_arms_have_names_of_their_own():
    names = [arm.name for arm in ARMS]
    assert len(names) == len(set(names))


# What is written


def test_tables_and_figure_tell_every_arm_with_its_interval(tmp_path):
    table = make_table({"ours": 30.0, "style-only": 10.0})
    table = pd.concat([table, table.assign(related=False)]).assign(direction=0.5, content_leakage=0.0, subject_leakage=0.0)
    arms = [Arm("ours", ""), Arm("style-only", "", training="style-only")]
    areas = write_area_table(table, arms, "truth_perceptual_similarity")
    assert "| ours | 16.2 [" in areas
    assert "| 10.0 [10.0, 10.0] |" in areas
    assert write_group_table(table, arms).count("16.2") == 2
    assert "| ink | style-only | 0.50 | 0.50 |" in write_side_table(table, arms)
    draw_figure(average_pairs(table), arms, tmp_path / "curves.svg")
    figure = (tmp_path / "curves.svg").read_text()
    assert figure.count("<polyline") == 2
    assert all(f">{arm.name}</text>" in figure for arm in arms)


def test_a_sheet_shows_every_setting_and_the_truth(bench, manifest, tmp_path):
    arm = TINY_ARMS[0]
    table = tabulate_pictures(arm, run_arm(bench, arm, manifest, (0, 1)), SAMPLE.guidance_scale, {"fox": "animals"})
    truths = read_truths([manifest])
    draw_sheet(table, arm.name, bench.store.url, truths, tmp_path / "sheet.png")
    sheet = Image.open(tmp_path / "sheet.png")
    cell, step = CELL // 2, CELL + GAP
    shown = [sheet.getpixel((GAP + column * step + cell, HEAD + cell)) for column in range(len(RELATIVE_STRENGTHS) + 1)]
    truth = Image.open(next(iter(truths.values()))).convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS)
    assert shown[-1] == truth.getpixel((cell, cell))
    assert len(set(shown)) > 2
