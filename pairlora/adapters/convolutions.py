"""Convolutions with frozen weights, for training: nothing is kept for the backward pass, and oneDNN lays a weight out once.

In every call oneDNN copies a weight into an order of its own. For few positions, as in the inner blocks of a small picture,
that is half of a convolution; here the copies stay, one for the way there and one for the way back.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input

MKLDNN: Any = torch.ops.mkldnn
"""oneDNN's operations as PyTorch's compiler calls them."""

LAYS_OUT = torch.backends.mkldnn.is_available() and hasattr(MKLDNN, "_convolution_pointwise")

MOST_POSITIONS = 1024
"""Positions (rows x height x width) up to which laying a weight out anew is more than a small share of a convolution."""


class LaidOutWeight:
    """A weight in the order that oneDNN wants for inputs of the last shape; `make` gives it in PyTorch's own, (out, in, height, width)."""

    def __init__(self, make: Callable[[], Tensor], bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]):
        self.make, self.bias, self.stride, self.padding = make, bias, stride, padding
        self._shape: torch.Size | None = None
        self._weight: Any = None

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution of `x` (rows, channels, height, width), without a gradient."""
        if x.shape != self._shape:
            self._weight = MKLDNN._reorder_convolution_weight(self.make(), self.padding, self.stride, (1, 1), 1, x.shape)
            self._shape = x.shape
        y = MKLDNN._convolution_pointwise(x, self._weight, self.bias, self.padding, self.stride, (1, 1), 1, "none", [], "")
        return y.contiguous()  # channels come last; what follows is faster with rows of pixels


class ConvProducts:
    """What a frozen convolution makes of an input, and of the gradient of its output."""

    def __init__(self, conv: nn.Conv2d):
        self.conv: Any = conv  # sizes are typed too loosely to check
        stride, padding = self.conv.stride, self.conv.padding
        edges = tuple(size - 1 - edge for size, edge in zip(self.conv.kernel_size, padding, strict=True))
        self._there = LaidOutWeight(conv.weight.detach, conv.bias, stride, padding)
        self._back = LaidOutWeight(lambda: conv.weight.detach().flip(2, 3).transpose(0, 1).contiguous(), None, (1, 1), edges)
        self._turns = stride == (1, 1) and min(edges) >= 0

    def multiply(self, x: Tensor) -> Tensor:
        """The convolution of `x` (rows, channels, height, width)."""
        conv = self.conv
        if self._is_worth_a_layout(x, conv.stride):
            return self._there.convolve(x)
        return functional.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    def multiply_back(self, gy: Tensor, shape: torch.Size) -> Tensor:
        """The gradient of an input of a shape; at stride 1 it is a convolution itself, with the kernels turned round."""
        conv = self.conv
        if self._turns and self._is_worth_a_layout(gy, (1, 1)):
            return self._back.convolve(gy)
        return conv2d_input(shape, conv.weight, gy, conv.stride, conv.padding, conv.dilation, conv.groups)

    def _is_worth_a_layout(self, x: Tensor, stride: tuple[int, int]) -> bool:
        positions = x.shape[0] * x.shape[2] * x.shape[3] // (stride[0] * stride[1])
        plain = self.conv.dilation == (1, 1) and self.conv.groups == 1
        return LAYS_OUT and plain and x.device.type == "cpu" and x.dtype == torch.float32 and positions <= MOST_POSITIONS


class FrozenConv(torch.autograd.Function):
    """A convolution with a gradient for its input alone, of which it keeps the shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, products: ConvProducts) -> Tensor:
        ctx.products, ctx.shape = products, x.shape
        return products.multiply(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None]:
        return ctx.products.multiply_back(gy, ctx.shape), None
