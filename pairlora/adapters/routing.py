"""Which rows of a batch see which adapters, and which inputs of layers stay the same from one forward to the next."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn


class Role(StrEnum):
    """What an adapter of a pair has learnt: what is in the pictures, or what changed between them."""

    CONTENT = "content"
    STYLE = "style"


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of a batch that see one role's adapters, divided evenly among `slots`, in their order.

    `detached`: the rows see the adapter and send no gradient to its B (the stop-gradient of eq. 6).
    """

    start: int
    stop: int
    role: Role
    slots: tuple[int, ...]
    detached: bool = False

    def __post_init__(self) -> None:
        if (self.stop - self.start) % len(self.slots):
            raise ValueError(f"{self.stop - self.start} rows do not divide evenly among {len(self.slots)} slots")

    def divide(self, repeats: int) -> "Segment":
        """The same segment where every `repeats` rows are one; ValueError where it does not begin and end between them."""
        if self.start % repeats or self.stop % repeats:
            raise ValueError(f"rows {self.start} to {self.stop} are no multiples of {repeats}")
        return Segment(self.start // repeats, self.stop // repeats, self.role, self.slots, self.detached)


def span_rows(segments: Iterable[Segment]) -> dict[Role, slice]:
    """The rows from the first to the last that see an adapter of each role."""
    spans: dict[Role, slice] = {}
    for segment in segments:
        known = spans.get(segment.role, slice(segment.start, segment.stop))
        spans[segment.role] = slice(min(known.start, segment.start), max(known.stop, segment.stop))
    return spans


@dataclass(frozen=True)
class Product:
    """What the frozen weights make of an input: `W0 x + bias`, and `A x` of the rows of each role's span."""

    output: Tensor
    projected: dict[Role, Tensor]


class ConstantInputs:
    """Inputs of layers that are the same tensors in many forwards, as a text is, with the frozen layers' products of them.

    Rows come in runs of `repeats` equal ones; products are computed for the first row of each run, once.
    A layer is told by the identity of its input, so a base that hands on something else is computed as ever.
    """

    def __init__(self, tensors: Iterable[Tensor], repeats: int = 1):
        self.tensors = tuple(tensors)
        self.repeats = repeats
        self._products: dict[nn.Module, Product] = {}

    def holds(self, x: Tensor) -> bool:
        """Whether `x` is one of the constant tensors, not merely equal to one."""
        return any(x is tensor for tensor in self.tensors)

    def product(self, layer: nn.Module, compute: Callable[[], Product]) -> Product:
        """The product of a layer, computed at the first time."""
        if layer not in self._products:
            with torch.no_grad():
                self._products[layer] = compute()
        return self._products[layer]


@dataclass(frozen=True)
class Route:
    """What is in force during a forward: the segments, the constant inputs, and which layers are known to share an input."""

    segments: tuple[Segment, ...] = ()
    constants: ConstantInputs | None = None
    siblings: "dict[nn.Module, Sequence[nn.Module]] | None" = None
