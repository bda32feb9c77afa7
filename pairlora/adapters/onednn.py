"""Float32 products of frozen linear layers on a CPU, by oneDNN: PyTorch's own come from MKL, which is slow where the CPU is not Intel's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
"""oneDNN's linear layer as PyTorch's compiler calls it; None where this build has none."""

WORTHWHILE = 2_000_000
"""Multiplications of a product from which on oneDNN's start-up pays."""


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN makes this product, and its start-up pays."""
    return ONEDNN is not None and x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() * len(weight) >= WORTHWHILE


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x weightᵀ + bias` for `x` (..., in) and `weight` (out, in), without a gradient."""
    if is_faster(x, weight):
        return ONEDNN(x.contiguous(), weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)


@contextmanager
def onednn_products(denoiser: nn.Module) -> Iterator[None]:
    """Within the block, which keeps no gradients, linear layers in float32 on a CPU multiply by oneDNN; to float32 they say the same."""
    layers = [module for module in denoiser.modules() if _qualifies(module)]
    for layer in layers:
        layer.forward = _multiplying(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _qualifies(module: nn.Module) -> bool:
    """Plain linear layers that nobody else has changed."""
    if ONEDNN is None or type(module) is not nn.Linear or "forward" in vars(module):
        return False
    return module.weight.device.type == "cpu" and module.weight.dtype == torch.float32


def _multiplying(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    return lambda x: multiply(x, weight, bias)
