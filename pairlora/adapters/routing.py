"""Which rows of a batch see which adapters, and which inputs of layers stay the same from one forward to the next."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import accumulate

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


@dataclass(frozen=True)
class Part:
    """A segment as the products see it: its rows, counted from the plan's first, and the place of its role among the plan's."""

    rows: slice
    role: int
    slots: tuple[int, ...]
    detached: bool
    side_by_side: bool


@dataclass(frozen=True)
class Plan:
    """The products that a route asks of every layer: for `rows` of the batch, with the stacked A of `roles`."""

    rows: slice
    roles: tuple[Role, ...]
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> "Plan":
        roles = tuple(role for role in Role if any(segment.role is role for segment in segments))
        first, last = min(segment.start for segment in segments), max(segment.stop for segment in segments)
        parts = [
            Part(slice(one.start - first, one.stop - first), roles.index(one.role), one.slots, one.detached, _stand_side_by_side(one.slots))
            for one in segments
        ]
        return cls(slice(first, last), roles, tuple(parts))

    @cached_property
    def products(self) -> tuple[Part, ...]:
        """The parts where it does not matter who sends gradients: neighbouring rows of one slot and role are one product."""
        merged: list[Part] = []
        for part in sorted(self.parts, key=lambda part: (part.role, part.rows.start)):
            if merged and _is_continued(merged[-1], part):
                merged[-1] = replace(merged[-1], rows=slice(merged[-1].rows.start, part.rows.stop))
            else:
                merged.append(part)
        return tuple(merged)

    @cached_property
    def trained(self) -> frozenset[Role]:
        """The roles to whose B any row sends a gradient."""
        return frozenset(self.roles[part.role] for part in self.parts if not part.detached)


def _is_continued(part: Part, other: Part) -> bool:
    return len(part.slots) == 1 and (part.role, part.slots, part.rows.stop) == (other.role, other.slots, other.rows.start)


def _stand_side_by_side(slots: tuple[int, ...]) -> bool:
    return slots == tuple(range(slots[0], slots[0] + len(slots)))


class StackedBasis:
    """The frozen A of one input width: by role, and stacked for several roles at once."""

    def __init__(self, matrices: Mapping[Role, Tensor]):
        self._matrices = dict(matrices)
        self._stacks: dict[tuple[Role, ...], Tensor] = {(role,): matrix for role, matrix in matrices.items()}
        self._columns: dict[tuple[Role, ...], list[slice]] = {}

    def __getitem__(self, role: Role) -> Tensor:
        return self._matrices[role]

    def stack(self, roles: tuple[Role, ...]) -> Tensor:
        """`A` (sum of ranks, in) of some roles, one below the other."""
        if roles not in self._stacks:
            self._stacks[roles] = torch.cat([self._matrices[role] for role in roles])
        return self._stacks[roles]

    def columns(self, roles: tuple[Role, ...]) -> list[slice]:
        """Where `A x` of each role stands in that of the stack."""
        if roles not in self._columns:
            stops = list(accumulate(len(self._matrices[role]) for role in roles))
            self._columns[roles] = [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
        return self._columns[roles]


@dataclass(frozen=True)
class Product:
    """What the frozen weights make of an input: `W0 x + bias`, and `A x` with the stacked A of some roles."""

    output: Tensor
    projected: Tensor


class ConstantInputs:
    """Inputs of layers that are the same tensors in many forwards, as a text is, with the frozen layers' products of them.

    Rows come in runs of `repeats` equal ones; products are computed for the first row of each run, once.
    A layer is told by the identity of its input, so a base that hands on something else is computed as ever.
    """

    def __init__(self, tensors: Iterable[Tensor], repeats: int = 1):
        self.tensors = tuple(tensors)
        self.repeats = repeats
        self._products: dict[tuple[nn.Module, tuple[Role, ...]], Product] = {}

    def holds(self, x: Tensor) -> bool:
        """Whether `x` is one of the constant tensors, not merely equal to one."""
        return any(x is tensor for tensor in self.tensors)

    def product(self, layer: nn.Module, roles: tuple[Role, ...], compute: Callable[[], Product]) -> Product:
        """The product of a layer with the A of some roles, computed at the first time."""
        if (key := (layer, roles)) not in self._products:
            with torch.no_grad():
                self._products[key] = compute()
        return self._products[key]


@dataclass(frozen=True)
class Route:
    """What is in force during a forward: the segments, the constant inputs, and which layers are known to share an input."""

    segments: tuple[Segment, ...] = ()
    constants: ConstantInputs | None = None
    siblings: Mapping[nn.Module, Sequence[nn.Module]] | None = None
    _plans: dict[int, Plan] = field(default_factory=dict, compare=False)

    def plan(self, repeats: int) -> Plan:
        """The plan of the segments where every `repeats` rows are one."""
        if repeats not in self._plans:
            self._plans[repeats] = Plan.of([segment.divide(repeats) for segment in self.segments])
        return self._plans[repeats]
