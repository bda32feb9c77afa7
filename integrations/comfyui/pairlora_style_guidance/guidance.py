# SPDX-License-Identifier: Apache-2.0
"""The sum of style guidance as ComfyUI takes it: Jones et al. 2024 (arXiv 2405.01536), eqs. 10 and 11. It needs no ComfyUI."""

from typing import Any


def lead_prediction(positive: Any, styled: Any, strength: float, cfg: float) -> Any:
    """What the prompt's prediction must be, so that classifier-free guidance at scale `cfg` gives style guidance of this strength.

        negative + cfg * (led - negative) = negative + cfg * (positive - negative) + strength * (styled - positive)

    Predictions are tensors of one shape. ComfyUI predicts pictures rather than noise; both are the same straight line of each other
    for all predictions of a step, and the weights of the sum add up to 1, so the equation is the same.
    """
    return positive + (strength / cfg) * (styled - positive)
