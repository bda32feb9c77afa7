"""Style guidance: how predictions with and without a style adapter become one (Jones et al. 2024, eqs. 10-11)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # rows are also counted where no torch is loaded
    from torch import Tensor


def guide(uncond: "Tensor", cond: "Tensor", styled: "Sequence[Tensor]", *, guidance_scale: float, strengths: Sequence[float]) -> "Tensor":
    """Combine predictions, each (batch, channels, height, width): arXiv 2405.01536, eqs. 10 and 11.

    `uncond` and `cond` come from the base alone, `styled[i]` from the base with style adapter i and the prompt in
    its style. Strengths λ_i may be negative, which walks away from the style. The sampler computes the same sum
    as rows and weights; this plain form is what it is held to.
    """
    eps = uncond + guidance_scale * (cond - uncond)
    for strength, eps_style in zip(strengths, styled, strict=True):
        eps = eps + strength * (eps_style - cond)
    return eps


def guidance_weights(guidance_scale: float, strengths: Sequence[float]) -> tuple[float, ...]:
    """The weights of [uncond, cond, *styled] in the same sum; they add up to 1."""
    return (1 - guidance_scale, guidance_scale - sum(strengths), *strengths)
