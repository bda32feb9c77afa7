"""The evaluation's CLIP beside one that was written anew: equal embeddings, and equal values of every metric that rests on it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plain_clip import PlainClip

from pairlora.bases.loading import EMBEDDED
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.evaluation.scoring import Drawn, ScoredPair, Scorer

PICTURES = Path(__file__).parents[1] / "examples" / "fluent" / "pictures"
PROMPTS = (
    "a flat icon of a cow face, centred on white",
    "A FLAT icon, it's 3 cats & 12 dogs!",
    "x",
    "a very long prompt that goes on and on " * 6,
)


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return ClipEncoder("embedded")


@pytest.fixture(scope="module")
def plain() -> PlainClip:
    return PlainClip(EMBEDDED / "clip")


def read_picture(name: str, size: tuple[int, int] = (64, 64)) -> Image.Image:
    with Image.open(PICTURES / f"{name}.png") as picture:
        return picture.convert("RGB").resize(size)


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (96, 64), (50, 80)])
def test_pictures_of_every_shape_have_the_same_embedding(encoder: ClipEncoder, plain: PlainClip, size: tuple[int, int]):
    picture = read_picture("cow-face-gradient", size)
    assert encoder.embed_pictures([picture])[0].numpy() == pytest.approx(plain.embed_picture(picture), abs=2e-5)


def test_prompts_have_the_same_embedding_alone_and_beside_longer_ones(encoder: ClipEncoder, plain: PlainClip):
    together = encoder.embed_prompts(PROMPTS).numpy()
    for prompt, embedding in zip(PROMPTS, together, strict=True):
        expected = plain.embed_prompt(prompt)
        assert embedding == pytest.approx(expected, abs=2e-5)
        assert encoder.embed_prompts([prompt])[0].numpy() == pytest.approx(expected, abs=2e-5)
    assert len(plain.tokenize(PROMPTS[-1])) == encoder.token_limit


def test_the_metrics_of_a_picture_are_those_of_the_other_implementation(encoder: ClipEncoder, plain: PlainClip):
    names = ("cow-face-flat", "cow-face-gradient", "pizza-gradient", "pizza-high-contrast")
    content, style, unstyled, styled = (read_picture(name) for name in names)
    subject, prompt = "a flat icon of a cow face, centred on white", "a flat icon of a pizza, centred on white"
    (scores,) = Scorer(encoder, None).score(ScoredPair(content, style, subject), [Drawn(prompt, 2.5, styled, unstyled)])
    c, s, before, after = (plain.embed_picture(picture) for picture in (content, style, unstyled, styled))
    told_subject, told_prompt = plain.embed_prompt(subject), plain.embed_prompt(prompt)
    wanted, made = s - c, after - before
    expected = {
        "direction": wanted @ made / np.linalg.norm(wanted) / np.linalg.norm(made),
        "progress": wanted @ made / (wanted @ wanted),
        "style_similarity": after @ s,
        "text_alignment": after @ told_prompt,
        "structure_similarity": after @ before,
        "content_leakage": (after - before) @ c,
        "subject_leakage": (after - before) @ told_subject,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-4)
