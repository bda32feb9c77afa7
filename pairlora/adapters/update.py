"""The low-rank update of frozen linear layers as one differentiable function that keeps little for its backward pass.

`y = W0 x + B_c A_c x + B_s A_s x` on the rows of each segment. A is frozen, so the gradients of B need `A x` alone, which is
as wide as the rank, and not `x`. Layers that read one input share `A x`, and the way back through it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pairlora.adapters.products import multiply
from pairlora.adapters.routing import Product, Role, Segment, span_rows


@dataclass(frozen=True)
class Update:
    """Layers that read one input, the frozen A of each role for its width, and the segments of its rows.

    `products` are given where the input is constant: then nothing is computed from it.
    """

    layers: Sequence[nn.Linear]
    bases: dict[Role, Tensor]
    segments: Sequence[Segment]
    products: Sequence[Product] | None = None

    @property
    def roles(self) -> list[Role]:
        return list(span_rows(self.segments))


def project(x: Tensor, bases: dict[Role, Tensor], spans: dict[Role, slice]) -> dict[Role, Tensor]:
    """`A x` (rows of the span, ..., rank) of each role, in the dtype of A."""
    return {role: x[rows].to(bases[role].dtype) @ bases[role].T for role, rows in spans.items()}


def select_slots(b: Tensor, slots: tuple[int, ...]) -> Tensor:
    """B of some slots, (len(slots), out, rank); no copy where they lie side by side."""
    if slots == tuple(range(slots[0], slots[0] + len(slots))):
        return b.narrow(0, slots[0], len(slots))
    return b[list(slots)]


def add_product(rows: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right`, both (slots, ...), to rows in place; the product is made in its factors' dtype."""
    if rows.dtype != left.dtype:
        rows += torch.bmm(left, right).to(rows.dtype)
    elif len(rows) == 1:
        rows[0].addmm_(left[0], right[0])
    else:
        rows.baddbmm_(left, right)


class LowRankUpdate(torch.autograd.Function):
    """Outputs of `update.layers` for the input `x` (rows, ..., in), one a layer; `b` holds B by layer, then by role."""

    @staticmethod
    def forward(ctx: Any, update: Update, x: Tensor, *b: Tensor) -> tuple[Tensor, ...]:
        spans = span_rows(update.segments)
        if update.products is None:
            projected = project(x, update.bases, spans)
            outputs = [layer(x).contiguous() for layer in update.layers]
        else:
            projected = {role: update.products[0].projected[role][rows] for role, rows in spans.items()}
            outputs = [product.output.clone() for product in update.products]
        for segment, index, p in _walk(update, projected, spans):
            for layer, y in enumerate(outputs):
                chosen = select_slots(b[layer * len(spans) + index], segment.slots)
                add_product(_group(y[segment.start : segment.stop], segment), p, chosen.mT)
        ctx.update = update
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*projected.values(), *b)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        update: Update = ctx.update
        spans = span_rows(update.segments)
        projected = dict(zip(spans, ctx.saved_tensors[: len(spans)], strict=True))
        b = ctx.saved_tensors[len(spans) :]
        arrived = [(layer, gy.contiguous()) for layer, gy in enumerate(gradients) if gy is not None]
        db = _gradients_of_b(update, projected, spans, b, arrived, ctx.needs_input_grad[2:])
        dx = _gradient_of_input(update, spans, b, arrived) if ctx.needs_input_grad[1] and arrived else None
        return None, dx, *db


def _walk(update: Update, projected: dict[Role, Tensor], spans: dict[Role, slice]):
    """Segments with the place of their role among the spans and their `A x`, (slots, rows of a slot, rank)."""
    roles = list(spans)
    for segment in update.segments:
        offset = spans[segment.role].start
        rows = projected[segment.role][segment.start - offset : segment.stop - offset]
        yield segment, roles.index(segment.role), _group(rows, segment)


def _group(rows: Tensor, segment: Segment) -> Tensor:
    """(rows, ..., width) as (slots, rows of a slot, width), a view where rows are contiguous."""
    return rows.view(len(segment.slots), -1, rows.shape[-1])


def _gradients_of_b(
    update: Update,
    projected: dict[Role, Tensor],
    spans: dict[Role, slice],
    b: Sequence[Tensor],
    arrived: Sequence[tuple[int, Tensor]],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """`gyᵀ (A x)` for each B that wants it, summed over the segments of its role that are not detached."""
    gradients: list[Tensor | None] = [None] * len(b)
    for segment, index, p in _walk(update, projected, spans):
        for layer, gy in arrived:
            place = layer * len(spans) + index
            if segment.detached or not wanted[place]:
                continue
            part = torch.bmm(_group(gy[segment.start : segment.stop], segment).mT.to(p.dtype), p)
            if len(segment.slots) == len(b[place]) and segment.slots == tuple(range(len(part))) and gradients[place] is None:
                gradients[place] = part
                continue
            whole = gradients[place] if gradients[place] is not None else torch.zeros_like(b[place])
            gradients[place] = whole.index_add(0, torch.tensor(segment.slots, device=part.device), part)
    return gradients


def _gradient_of_input(update: Update, spans: dict[Role, slice], b: Sequence[Tensor], arrived: Sequence[tuple[int, Tensor]]) -> Tensor:
    """`gy W0` of all layers, and `(gy B) A` of their segments; the way back through A is walked once for all layers."""
    (first, gy), *others = arrived
    dx = multiply(gy, update.layers[first].weight.t())
    for layer, gy in others:
        dx += multiply(gy, update.layers[layer].weight.t())
    roles = list(spans)
    for role, rows in spans.items():
        a = update.bases[role]
        back = torch.zeros((*dx[rows].shape[:-1], len(a)), dtype=a.dtype, device=a.device)
        for segment in update.segments:
            if segment.role is not role:
                continue
            inner = _group(back[segment.start - rows.start : segment.stop - rows.start], segment)
            for layer, gy in arrived:
                chosen = select_slots(b[layer * len(roles) + roles.index(role)], segment.slots)
                add_product(inner, _group(gy[segment.start : segment.stop], segment).to(a.dtype), chosen)
        add_product(dx[rows].view(1, -1, dx.shape[-1]), back.view(1, -1, len(a)), a[None])
    return dx
