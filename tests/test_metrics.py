"""The metrics in closed form, and the rule for the recommended strength."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_base import make_picture

from pairlora.evaluation.metrics import cosine, direction, progress, spread, structure_ssim, truth_ssim
from pairlora.evaluation.scoring import EmbeddedPair, compare
from pairlora.measures import METRICS, bootstrap_mean, recommend_strength, recommend_strengths

X, Y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def test_direction_is_one_for_the_same_change_and_minus_one_for_the_opposite():
    assert direction(X, Y, X, Y) == pytest.approx(1.0)
    assert direction(X, Y, Y, X) == pytest.approx(-1.0)


def test_direction_is_null_where_nothing_changed():
    assert direction(X, Y, X, X) is None
    assert direction(X, X, X, Y) is None


def test_progress_is_the_share_of_the_pairs_own_way():
    assert progress(X, Y, X, Y) == pytest.approx(1.0)
    assert progress(X, Y, X, (X + Y) / 2) == pytest.approx(0.5)
    assert progress(X, Y, X, X) == 0
    assert progress(X, Y, Y, X) == pytest.approx(-1.0)
    assert progress(X, X, X, Y) is None


def test_cosine_is_raw():
    assert cosine(X, (X + Y) / 2**0.5) == pytest.approx(2**-0.5)


def test_leakage_is_measured_against_the_unstyled_picture():
    values = compare(X, Y, EmbeddedPair(content=X, style=Y, subject=X), told=Y)
    assert values["content_leakage"] == pytest.approx(1.0)
    assert values["subject_leakage"] == pytest.approx(1.0)
    assert values["style_similarity"] == pytest.approx(0.0)
    assert values["text_alignment"] == pytest.approx(0.0)
    assert values["structure_similarity"] == pytest.approx(0.0)


def test_structure_is_one_for_the_same_edges_in_other_colours():
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste((200, 40, 40), (16, 16, 48, 48))
    assert structure_ssim(picture, picture) == pytest.approx(1.0)
    moved = Image.new("RGB", (64, 64), "white")
    moved.paste((200, 40, 40), (2, 2, 34, 34))
    assert structure_ssim(moved, picture) < 0.9


def test_truth_of_another_size_is_resized():
    picture = make_picture(0, 64)
    assert truth_ssim(picture, picture.resize((128, 128), Image.Resampling.NEAREST)) > 0.8
    assert truth_ssim(picture, make_picture(1, 128)) < 0.6


def test_spread_is_the_mean_distance_to_the_other_seeds():
    assert spread(torch.stack([X, Y, X])) == pytest.approx([0.5, 1.0, 0.5])
    assert spread(torch.stack([X, X])) == pytest.approx([0.0, 0.0])
    assert spread(torch.stack([X])) == [None]


def test_the_bootstrap_interval_covers_the_mean_at_its_nominal_rate():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        _, low, high = bootstrap_mean(list(rng.normal(1.0, 1.0, size=30)), samples=500, seed=trial)
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    ("directions", "structures", "expected"),
    [
        ({1.0: 0.2, 2.0: 0.5, 3.0: 0.52}, {1.0: 0.9, 2.0: 0.8, 3.0: 0.7}, 2.0),
        ({1.0: 0.2, 2.0: 0.5, 3.0: 0.9}, {1.0: 0.9, 2.0: 0.8, 3.0: 0.1}, 2.0),
        ({1.0: -0.2, 2.0: -0.1}, {1.0: 0.9, 2.0: 0.9}, None),
        ({1.0: 0.2}, {1.0: 0.1}, None),
        ({0.0: 0.9, 1.0: 0.2}, {0.0: 1.0, 1.0: 0.9}, 1.0),
    ],
    ids=["knee", "layout lost", "wrong way", "no layout left", "zero is no strength"],
)
def test_the_recommended_strength(directions, structures, expected):
    assert recommend_strength(directions, structures, least_progress=0.5, structure_floor=0.3) == expected


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        ({1.0: 0.2, 2.0: 0.4, 4.0: 0.8}, 1.0),
        ({1.0: 0.2, 2.0: 0.5, 4.0: 2.0}, 4.0),
        ({1.0: 0.2, 2.0: 0.8, 4.0: 1.2}, 2.0),
        ({1.0: 0.05, 2.0: 0.06, 4.0: 0.07}, 4.0),
    ],
    ids=["steady", "sets in late", "sets in, then tires", "hardly moves"],
)
def test_a_strength_at_which_the_style_has_not_set_in_is_not_recommended(progress, expected):
    structures = dict.fromkeys(progress, 0.9)
    assert recommend_strength(progress, structures, least_progress=0.2, structure_floor=0.3, least_pace=0.75) == expected


def test_all_resamples_at_once_are_recommended_what_each_alone_is():
    rng = np.random.default_rng(0)
    strengths, progress, structure = np.array([0.0, 0.5, 1.0, 2.0, 4.0]), rng.normal(0.2, 0.3, (200, 5)), rng.uniform(0.1, 1.0, (200, 5))
    rule = {"least_progress": 0.2, "structure_floor": 0.3, "least_pace": 0.75}
    alone = [
        recommend_strength(dict(zip(strengths, gone, strict=True)), dict(zip(strengths, kept, strict=True)), **rule)
        for gone, kept in zip(progress, structure, strict=True)
    ]
    together = recommend_strengths(strengths, progress, structure, **rule)
    assert together.tolist() == pytest.approx([float("nan") if one is None else one for one in alone], nan_ok=True)
    assert len(set(alone)) == 5


def test_every_metric_says_what_is_better():
    assert all(metric.meaning and metric.better in {"higher", "near 0", "near 1"} for metric in METRICS.values())
