"""Products with frozen weights, for training: little is kept for the backward pass, and a CPU multiplies by oneDNN.

The gradient of an input needs the frozen weight alone. PyTorch's convolution keeps its input all the same; and its float32 matrix
products on a CPU come from MKL, which runs at less than half of oneDNN's rate where the CPU is not Intel's. What a gated unit
would keep is four tenths of all that a training step holds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from pairlora.adapters.convolutions import ConvProducts, FrozenConv
from pairlora.adapters.onednn import is_faster, multiply

Forward = Callable[[Tensor], Tensor]


class FrozenLinear(torch.autograd.Function):
    """A linear layer with a gradient for its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: nn.Linear) -> Tensor:
        ctx.weight = linear.weight
        return multiply(x, linear.weight, linear.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None]:
        return multiply(gy, ctx.weight.detach().t()), None


class FrozenGEGLU(torch.autograd.Function):
    """`a * gelu(g)` with `a, g = W x + bias`, of which it keeps `x`, an eighth as wide: the product is made once more on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: nn.Linear) -> Tensor:
        ctx.linear = linear
        ctx.save_for_backward(x)
        passed, gate = multiply(x, linear.weight, linear.bias).chunk(2, dim=-1)
        return passed * functional.gelu(gate)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None]:
        (x,), linear = ctx.saved_tensors, ctx.linear
        product = multiply(x, linear.weight, linear.bias)
        passed, gate = product.chunk(2, dim=-1)
        through_gate = torch.ops.aten.gelu_backward(gy * passed, gate)
        passed.copy_(gy * functional.gelu(gate))
        gate.copy_(through_gate)
        return multiply(product, linear.weight.detach().t()), None


def freeze_linear(linear: nn.Linear) -> Forward:
    """A frozen linear layer; PyTorch's own keeps nothing either, and is left alone where it is as fast."""

    def forward(x: Tensor) -> Tensor:
        if is_faster(x, linear.weight):
            return FrozenLinear.apply(x, linear)
        return functional.linear(x, linear.weight, linear.bias)

    return forward


def freeze_conv(conv: nn.Conv2d) -> Forward:
    """A frozen convolution, with what it keeps of its weight for the length of the block."""
    products = ConvProducts(conv)
    return lambda x: FrozenConv.apply(x, products)


def freeze_geglu(geglu: GEGLU) -> Forward:
    """A frozen gated linear unit, the widest part of a transformer block."""
    return lambda x: FrozenGEGLU.apply(x, geglu.proj)


FORWARDS: dict[type[nn.Module], Any] = {nn.Linear: freeze_linear, nn.Conv2d: freeze_conv, GEGLU: freeze_geglu}


@contextmanager
def frozen_products(denoiser: nn.Module) -> Iterator[None]:
    """Within the block, the frozen layers of a denoiser keep nothing for the backward pass, and gated units their input."""
    changed = [module for module in denoiser.modules() if _can_be_replaced(module)]
    for module in changed:
        module.forward = FORWARDS[type(module)](module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _can_be_replaced(module: nn.Module) -> bool:
    """Frozen layers of exactly these classes; a string as padding, or a padding that is no zeros, is left alone."""
    if type(module) not in FORWARDS or any(parameter.requires_grad for parameter in module.parameters()):
        return False
    return not isinstance(module, nn.Conv2d) or (module.padding_mode == "zeros" and not isinstance(module.padding, str))
