"""The equation of style guidance in closed form."""

import pytest
import torch

from pairlora.sampling.guidance import guidance_weights, guide


@pytest.fixture
def predictions():
    return torch.randn((4, 1, 2, 3, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("strengths", [[], [2.0], [1.0, -0.5]])
def test_the_weights_add_up_to_one(strengths):
    assert sum(guidance_weights(5.0, strengths)) == pytest.approx(1.0)


def test_rows_and_weights_are_the_plain_equation(predictions):
    uncond, cond, *styled = predictions
    weights = torch.tensor(guidance_weights(5.0, [3.0, -1.0]), dtype=torch.float64)
    summed = (weights[:, None, None, None, None] * predictions).sum(0)
    assert torch.allclose(guide(uncond, cond, styled, guidance_scale=5.0, strengths=[3.0, -1.0]), summed, atol=1e-12)


def test_strength_zero_is_plain_guidance(predictions):
    uncond, cond, style, _ = predictions
    plain = uncond + 5.0 * (cond - uncond)
    assert torch.equal(guide(uncond, cond, [style], guidance_scale=5.0, strengths=[0.0]), plain)


def test_a_style_that_predicts_what_the_base_does_changes_nothing(predictions):
    uncond, cond = predictions[:2]
    styled = guide(uncond, cond, [cond], guidance_scale=5.0, strengths=[4.0])
    assert torch.allclose(styled, uncond + 5.0 * (cond - uncond))
