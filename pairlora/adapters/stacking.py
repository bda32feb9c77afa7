"""Styles of different origin on one base: each brings its own A, and they share a forward all the same.

With the A of all styles one below the other, and the B of each at the rows of its own A, `B_i A_i` is one product of the stack:
`[0 … B_i … 0] [A_1; …; A_n]`. Styles of one basis share their rows; adapters that have an A for every layer are stacked by layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pairlora.adapters.basis import Basis
from pairlora.adapters.dual import DualAdapters, attached_layers
from pairlora.adapters.files import Matrices
from pairlora.adapters.routing import Role, StackedBasis


@dataclass(frozen=True)
class Stack:
    """One layer of several styles: `a` (rank, in), and of each style its B (out, rank of its own) with the first row of its A; or null."""

    a: Tensor
    parts: tuple[tuple[Tensor, int] | None, ...]


@contextmanager
def styles_attached(denoiser: nn.Module, styles: Sequence[Matrices]) -> Iterator[DualAdapters]:
    """A denoiser with style i in slot i, whatever bases, ranks and layers the styles have. ValueError where it has no such layer."""
    stacks = {
        name: stack_layer([style.get(name) for style in styles]) for name in dict.fromkeys(name for style in styles for name in style)
    }
    bases = _share_bases(stacks, next(denoiser.parameters()))
    one_a_width = len(set(map(id, bases.values()))) == len({basis[Role.STYLE].shape[1] for basis in bases.values()})
    with attached_layers(denoiser, bases, Basis(0, {}, {}), len(styles), sharing_inputs=one_a_width) as adapters:
        for name, stack in stacks.items():
            _place(adapters.layers[name].values[Role.STYLE], stack)
        yield adapters


def stack_layer(styles: Sequence[tuple[Tensor, Tensor] | None]) -> Stack:
    """The stack of one layer from (A (rank, in), B (out, rank)) of each style, null where a style leaves the layer alone."""
    distinct: list[Tensor] = []
    parts: list[tuple[Tensor, int] | None] = []
    for style in styles:
        if style is None:
            parts.append(None)
            continue
        a, b = style
        index = next((index for index, known in enumerate(distinct) if torch.equal(known, a)), len(distinct))
        distinct += [a] if index == len(distinct) else []
        parts.append((b, sum(len(known) for known in distinct[:index])))
    return Stack(torch.cat(distinct), tuple(parts))


def _share_bases(stacks: Mapping[str, Stack], like: Tensor) -> dict[str, StackedBasis]:
    """One basis for all layers whose A is the same, so that layers with one input can share `A x`; on the device of `like`."""
    rank, dtype = max(len(stack.a) for stack in stacks.values()), torch.float64 if like.dtype == torch.float64 else torch.float32
    known: dict[int, list[tuple[Tensor, StackedBasis]]] = {}
    shared = {}
    for name, stack in stacks.items():
        alike = known.setdefault(stack.a.shape[1], [])
        basis = next((basis for a, basis in alike if torch.equal(a, stack.a)), None)
        if basis is None:
            a = _fill_up(stack.a, rank).to(like.device, dtype)
            basis = StackedBasis({Role.CONTENT: a[:0], Role.STYLE: a})
            alike.append((stack.a, basis))
        shared[name] = basis
    return shared


def _fill_up(a: Tensor, rank: int) -> Tensor:
    """A with rows of zeros below, up to the rank that all layers have in common."""
    return a if len(a) == rank else torch.cat([a, a.new_zeros(rank - len(a), a.shape[1])])


@torch.no_grad()
def _place(b: Tensor, stack: Stack) -> None:
    """Fill the B of a layer, (styles, out, rank), each style's at the columns of its own A."""
    for slot, part in enumerate(stack.parts):
        if part is not None:
            values, start = part
            b[slot, :, start : start + values.shape[1]].copy_(values)
