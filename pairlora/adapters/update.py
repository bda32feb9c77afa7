"""The low-rank update of frozen linear layers as one differentiable function that keeps little for its backward pass.

`y = W0 x + B_c A_c x + B_s A_s x` on the rows of each part of a plan. A is frozen, so the gradients of B need `A x` alone, which is
as wide as the ranks, and not `x`. Layers that read one input share `A x`, and the way back through it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pairlora.adapters.onednn import multiply
from pairlora.adapters.routing import Part, Plan, Product, StackedBasis


@dataclass(frozen=True)
class Update:
    """Layers that read one input, the frozen A for its width, and the plan of its rows.

    `products` are given where the input is constant: then nothing is computed from it.
    """

    layers: Sequence[nn.Linear]
    basis: StackedBasis
    plan: Plan
    products: Sequence[Product] | None = None


class LowRankUpdate(torch.autograd.Function):
    """Outputs of `update.layers` for the input `x` (rows, ..., in), one a layer; `b` holds B by layer, then by role."""

    @staticmethod
    def forward(ctx: Any, update: Update, x: Tensor, *b: Tensor) -> tuple[Tensor, ...]:
        plan, columns = update.plan, update.basis.columns(update.plan.roles)
        if update.products is None:
            projected = project(x[plan.rows], update.basis.stack(plan.roles))
            outputs = [layer(x).contiguous() for layer in update.layers]
        else:
            projected = update.products[0].projected[plan.rows]
            outputs = [product.output.clone() for product in update.products]
        for index, y in enumerate(outputs):
            rows = y[plan.rows]
            for part in plan.products:
                chosen = select_slots(b[index * len(plan.roles) + part.role], part)
                add_product(divide(rows, part), divide(projected, part)[..., columns[part.role]], chosen.mT)
        ctx.update = update
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(projected, *b)
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        update: Update = ctx.update
        projected, *b = ctx.saved_tensors
        arrived = [(index, gy.contiguous()) for index, gy in enumerate(gradients) if gy is not None]
        db = _gradients_of_b(update, projected, b, arrived, ctx.needs_input_grad[2:])
        dx = _gradient_of_input(update, b, arrived) if ctx.needs_input_grad[1] and arrived else None
        return None, dx, *db


def project(x: Tensor, stack: Tensor) -> Tensor:
    """`A x` (rows, ..., ranks) in the dtype of A."""
    return x.to(stack.dtype) @ stack.T


def divide(rows: Tensor, part: Part) -> Tensor:
    """The part's rows (rows, ..., width) as (slots, rows of a slot, width), a view."""
    return rows[part.rows].view(len(part.slots), -1, rows.shape[-1])


def select_slots(b: Tensor, part: Part) -> Tensor:
    """B of the part's slots, (slots, out, rank); no copy where they lie side by side."""
    if not part.side_by_side:
        return b[list(part.slots)]
    return b if len(part.slots) == len(b) else b.narrow(0, part.slots[0], len(part.slots))


def add_product(rows: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right`, both (slots, ...), to rows in place; the product is made in its factors' dtype."""
    if rows.dtype == left.dtype:
        rows.baddbmm_(left, right)
    else:
        rows += torch.bmm(left, right).to(rows.dtype)


def _gradients_of_b(
    update: Update, projected: Tensor, b: Sequence[Tensor], arrived: Sequence[tuple[int, Tensor]], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """`gyᵀ (A x)` for each B that wants it, summed over the parts of its role that are not detached."""
    plan, columns = update.plan, update.basis.columns(update.plan.roles)
    gradients: list[Tensor | None] = [None] * len(b)
    for part in plan.parts:
        if part.detached:
            continue
        p = divide(projected, part)[..., columns[part.role]].mT
        for index, gy in arrived:
            place = index * len(plan.roles) + part.role
            if wanted[place]:
                added = torch.bmm(p, divide(gy[plan.rows], part).to(p.dtype)).mT
                gradients[place] = _add_slots(gradients[place], added, part, b[place])
    return gradients


def _add_slots(whole: Tensor | None, added: Tensor, part: Part, like: Tensor) -> Tensor:
    """A gradient (all slots, out, rank) with that of the part's slots added."""
    if whole is None and part.side_by_side and len(part.slots) == len(like):
        return added
    whole = torch.zeros_like(like) if whole is None else whole
    return whole.index_add(0, torch.tensor(part.slots, device=added.device), added)


def _gradient_of_input(update: Update, b: Sequence[Tensor], arrived: Sequence[tuple[int, Tensor]]) -> Tensor:
    """`gy W0` of all layers, and `(gy B) A` of their parts; the way back through A is walked once for all layers."""
    plan, columns, stack = update.plan, update.basis.columns(update.plan.roles), update.basis.stack(update.plan.roles)
    (first, gy), *others = arrived
    dx = multiply(gy, update.layers[first].weight.t())
    for index, gy in others:
        dx += multiply(gy, update.layers[index].weight.t())
    back = torch.zeros((*dx[plan.rows].shape[:-1], len(stack)), dtype=stack.dtype, device=stack.device)
    for index, gy in arrived:
        rows = gy[plan.rows]
        for part in plan.products:
            chosen = select_slots(b[index * len(plan.roles) + part.role], part)
            add_product(divide(back, part)[..., columns[part.role]], divide(rows, part).to(stack.dtype), chosen)
    add_product(dx[plan.rows].view(1, -1, dx.shape[-1]), back.view(1, -1, len(stack)), stack[None])
    return dx
