"""The dual-LoRA linear layer: one frozen A per width and role, B stacked over slots, rows routed to adapters.

`W = W0 + B_c A_c + B_s A_s` (Jones et al. 2024, section 3.2), alpha = rank, so the scale is 1. A slot holds one
pair: K pairs train, and any number of styles are drawn, in one batch on one base.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from pairlora.adapters.basis import Basis


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


class DualLinear(nn.Module):
    """A frozen linear layer with two stacked low-rank updates; without a routing it is the frozen layer."""

    def __init__(self, linear: nn.Linear, bases: Mapping[Role, Tensor], slots: int):
        super().__init__()
        self.linear = linear
        self.segments: tuple[Segment, ...] = ()
        self.a = dict(bases)
        self.b = nn.ParameterDict(
            {
                role: nn.Parameter(torch.zeros(slots, linear.out_features, basis.shape[0], device=basis.device, dtype=basis.dtype))
                for role, basis in bases.items()
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x` (rows, ..., in) to (rows, ..., out); the update is computed in the dtype of B."""
        y = self.linear(x)
        for segment in self.segments:
            rows = slice(segment.start, segment.stop)
            y[rows] = y[rows] + self._update(x[rows], segment).to(y.dtype)
        return y

    def _update(self, x: Tensor, segment: Segment) -> Tensor:
        a, b = self.a[segment.role], self.b[segment.role]
        if segment.slots != tuple(range(len(b))):
            b = b[list(segment.slots)]
        if segment.detached:
            b = b.detach()
        projected = x.to(a.dtype) @ a.T
        grouped = projected.reshape(len(segment.slots), -1, projected.shape[-1])
        return torch.bmm(grouped, b.transpose(1, 2)).reshape(*projected.shape[:-1], b.shape[1])


class DualAdapters:
    """The dual adapters on all attention projections of a denoiser. Attach with `attached`, route rows with `routed`."""

    def __init__(self, layers: Mapping[str, DualLinear], basis: Basis, slots: int):
        self.layers = dict(layers)
        self.basis = basis
        self.slots = slots

    def parameters(self, role: Role) -> list[nn.Parameter]:
        """B of one role, each (slots, out, rank), in layer order."""
        return [layer.b[role] for layer in self.layers.values()]

    @contextmanager
    def routed(self, segments: Sequence[Segment]) -> Iterator[None]:
        """Within the block, rows see the adapters that `segments` name, and base rows pay nothing."""
        previous = [layer.segments for layer in self.layers.values()]
        for layer in self.layers.values():
            layer.segments = tuple(segments)
        try:
            yield
        finally:
            for layer, before in zip(self.layers.values(), previous, strict=True):
                layer.segments = before

    def extract(self, slot: int, role: Role) -> dict[str, tuple[Tensor, Tensor]]:
        """`{layer name: (A (rank, in), B (out, rank))}` of one slot, float32 copies on the CPU."""
        return {
            name: (layer.a[role].detach().float().cpu().clone(), layer.b[role][slot].detach().float().cpu().clone())
            for name, layer in self.layers.items()
        }

    @torch.no_grad()
    def load(self, slot: int, role: Role, matrices: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Put the B of an adapter into a slot; its A must be the basis that is attached here."""
        if missing := sorted(self.layers.keys() ^ matrices.keys()):
            raise ValueError(f"the adapter and the base differ in {len(missing)} layers, {missing[0]} among them")
        for name, layer in self.layers.items():
            a, b = matrices[name]
            if not torch.equal(a.to(layer.a[role]), layer.a[role]):
                raise ValueError(f"{name}: the adapter was trained on another basis; group adapters by basis digest")
            layer.b[role][slot].copy_(b)


@contextmanager
def attached(denoiser: nn.Module, names: Sequence[str], basis: Basis, slots: int) -> Iterator[DualAdapters]:
    """Replace the named linear layers by dual ones for the duration of the block; the base's weights stay untouched."""
    originals = {name: denoiser.get_submodule(name) for name in names}
    device = next(denoiser.parameters()).device
    dtype = torch.float64 if next(denoiser.parameters()).dtype == torch.float64 else torch.float32
    shared = {
        role: {width: matrix.to(device, dtype) for width, matrix in matrices.items()}
        for role, matrices in ((Role.CONTENT, basis.content), (Role.STYLE, basis.style))
    }
    layers = {
        name: DualLinear(linear, {role: matrices[linear.in_features] for role, matrices in shared.items()}, slots)
        for name, linear in originals.items()
        if isinstance(linear, nn.Linear)
    }
    for name, layer in layers.items():
        denoiser.set_submodule(name, layer)
    try:
        yield DualAdapters(layers, basis, slots)
    finally:
        for name, linear in originals.items():
            denoiser.set_submodule(name, linear)
