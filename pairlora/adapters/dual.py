"""The dual-LoRA linear layer: one frozen A per width and role, B stacked over slots, rows routed to adapters.

`W = W0 + B_c A_c + B_s A_s` (Jones et al. 2024, section 3.2), alpha = rank, so the scale is 1. A slot holds one
pair: K pairs train, and any number of styles are drawn, in one batch on one base.
"""

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from pairlora.adapters.basis import Basis
from pairlora.adapters.routing import ConstantInputs, Product, Role, Route, Segment, StackedBasis
from pairlora.adapters.update import LowRankUpdate, Update, project

__all__ = ["ConstantInputs", "DualAdapters", "DualLinear", "Role", "Segment", "attached", "attached_layers"]


class Switchboard:
    """The route in force, shared by all layers of a denoiser, and what layers have said of their inputs within a forward."""

    def __init__(self) -> None:
        self.route = Route()
        self._groups: list[list[nn.Module]] = []
        self._input: weakref.ref[Tensor] | None = None
        self._ahead: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def set(self, route: Route) -> Iterator[None]:
        """Put a route in force for the duration of the block; nothing of one forward reaches another."""
        before, self.route = self.route, route
        self._ahead.clear()
        try:
            yield
        finally:
            self.route = before
            self._ahead.clear()

    def note_input(self, layer: nn.Module, x: Tensor) -> None:
        """Remember which layers are called one after another with the very same input."""
        if self._input is not None and self._input() is x:
            self._groups[-1].append(layer)
        else:
            self._groups.append([layer])
            self._input = weakref.ref(x)

    def take_siblings(self) -> dict[nn.Module, Sequence[nn.Module]]:
        """The groups noted so far, by the layer that is called first; forgets them."""
        groups, self._groups, self._input = self._groups, [], None
        return {group[0]: group for group in groups if len(group) > 1}

    def keep(self, layer: nn.Module, x: Tensor, y: Tensor) -> None:
        """Keep an output that was computed together with a sibling's, until the layer is called with that input."""
        self._ahead[layer] = (x, y)

    def fetch(self, layer: nn.Module, x: Tensor) -> Tensor | None:
        """The output that was kept for a layer, where it is that of this very input."""
        kept = self._ahead.pop(layer, None)
        return kept[1] if kept is not None and kept[0] is x else None


class DualLinear(nn.Module):
    """A frozen linear layer with two stacked low-rank updates; without a routing it is the frozen layer."""

    def __init__(self, linear: nn.Linear, basis: StackedBasis, b: Mapping[Role, Tensor], switchboard: Switchboard):
        super().__init__()
        self.linear = linear
        self.a = basis
        self.b = nn.ParameterDict({role: nn.Parameter(values) for role, values in b.items()})
        self.values = dict(self.b.items())  # the same parameters, found without the detours of a module
        self._switchboard = switchboard

    def forward(self, x: Tensor) -> Tensor:
        """`x` (rows, ..., in) to (rows, ..., out); the update is computed in the dtype of B."""
        board = self._switchboard
        if not board.route.segments:
            return self.linear(x)
        if (y := board.fetch(self, x)) is not None:
            return y
        if board.route.siblings is None:
            board.note_input(self, x)
            return update_layers([self], x, board.route)[0]
        layers: Sequence[DualLinear] = board.route.siblings.get(self, (self,))  # pyright: ignore[reportAssignmentType]
        y, *others = update_layers(layers, x, board.route)
        for layer, output in zip(layers[1:], others, strict=True):
            board.keep(layer, x, output)
        return y

    def multiply(self, x: Tensor, roles: tuple[Role, ...]) -> Product:
        """What the frozen weights make of an input: `W0 x + bias`, and `A x` of some roles."""
        return Product(self.linear(x), project(x, self.a.stack(roles)))


def update_layers(layers: Sequence[DualLinear], x: Tensor, route: Route) -> Sequence[Tensor]:
    """The outputs of layers that read one input, base and updates together."""
    constants = route.constants if route.constants is not None and route.constants.holds(x) else None
    repeats = 1 if constants is None else constants.repeats
    plan = route.plan(repeats)
    products = None
    if constants is not None:
        products = [constants.product(layer, plan.roles, partial(layer.multiply, x[::repeats], plan.roles)) for layer in layers]
    update = Update([layer.linear for layer in layers], layers[0].a, plan, products)
    b = [layer.values[role] if role in plan.trained else layer.values[role].detach() for layer in layers for role in plan.roles]
    outputs = LowRankUpdate.apply(update, x, *b)
    if repeats == 1:
        return outputs
    return [y.unsqueeze(1).expand(-1, repeats, *y.shape[1:]).reshape(len(x), *y.shape[1:]) for y in outputs]


class DualAdapters:
    """The dual adapters on all attention projections of a denoiser. Attach with `attached`, route rows with `routed`.

    `blocks[role]`, each (layers, slots, out, rank), are the memory behind the B of layers of one output width: whole-adapter
    arithmetic is done on them, not on hundreds of small tensors.
    """

    def __init__(
        self,
        layers: Mapping[str, DualLinear],
        basis: Basis,
        blocks: Mapping[Role, list[Tensor]],
        switchboard: Switchboard,
        *,
        sharing_inputs: bool = True,
    ):
        """`sharing_inputs` says that layers which read one input have one A, so that `A x` is computed once for them."""
        self.layers = dict(layers)
        self.basis = basis
        self.blocks = dict(blocks)
        self.slots = self.blocks[Role.STYLE][0].shape[1]
        self._switchboard = switchboard
        self._siblings: dict[nn.Module, Sequence[nn.Module]] | None = None if sharing_inputs else {}

    def parameters(self, role: Role) -> list[nn.Parameter]:
        """B of one role, each (slots, out, rank), in layer order."""
        return [layer.b[role] for layer in self.layers.values()]

    @contextmanager
    def routed(self, segments: Sequence[Segment], constants: ConstantInputs | None = None) -> Iterator[None]:
        """Within the block, rows see the adapters that `segments` name, and base rows pay nothing.

        `constants` remembers products of inputs that stay the same; it belongs to these rows in this order.
        The first block learns which layers share an input.
        """
        route = Route(tuple(segments), constants, self._siblings)
        with self._switchboard.set(route):
            yield
        if self._siblings is None and segments:
            self._siblings = self._switchboard.take_siblings()

    @contextmanager
    def routed_again(self, route: Route) -> Iterator[None]:
        """A route of an earlier forward in force once more, as recomputation for a backward pass needs it."""
        with self._switchboard.set(replace(route, siblings=route.siblings or {})):
            yield

    @property
    def route(self) -> Route:
        """The route in force."""
        return self._switchboard.route

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


def allot_blocks(linears: Mapping[str, nn.Linear], slots: int, rank: int, like: Tensor) -> dict[int, Tensor]:
    """Zeros for the B of all layers, `{output width: (layers, slots, out, rank)}`, on the device and in the dtype of `like`."""
    counts = Counter(linear.out_features for linear in linears.values())
    return {width: torch.zeros(count, slots, width, rank, device=like.device, dtype=like.dtype) for width, count in counts.items()}


def deal_out(linears: Mapping[str, nn.Linear], blocks: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """The (slots, out, rank) of each layer, a view of its width's block; layers of one width in their order."""
    views = {width: iter(block) for width, block in blocks.items()}
    return {name: next(views[linear.out_features]) for name, linear in linears.items()}


@contextmanager
def attached(denoiser: nn.Module, names: Sequence[str], basis: Basis, slots: int) -> Iterator[DualAdapters]:
    """Replace the named linear layers by dual ones for the duration of the block; the base's weights stay untouched."""
    linears = _find_linears(denoiser, names)
    parameter = next(denoiser.parameters())
    dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    bases = {
        width: StackedBasis(
            {Role.CONTENT: basis.content[width].to(parameter.device, dtype), Role.STYLE: basis.style[width].to(parameter.device, dtype)}
        )
        for width in basis.style
    }
    with attached_layers(denoiser, {name: bases[linear.in_features] for name, linear in linears.items()}, basis, slots) as adapters:
        yield adapters


@contextmanager
def attached_layers(
    denoiser: nn.Module, bases: Mapping[str, StackedBasis], basis: Basis, slots: int, *, sharing_inputs: bool = True
) -> Iterator[DualAdapters]:
    """Replace layers by dual ones, each with the frozen A that `bases` has for its name, all of one rank a role."""
    linears = _find_linears(denoiser, bases)
    first = next(iter(bases.values()))
    blocks = {role: allot_blocks(linears, slots, len(first[role]), first[role]) for role in Role}
    b = {role: deal_out(linears, by_width) for role, by_width in blocks.items()}
    switchboard = Switchboard()
    layers = {
        name: DualLinear(linear, bases[name], {role: b[role][name] for role in Role}, switchboard) for name, linear in linears.items()
    }
    for name, layer in layers.items():
        denoiser.set_submodule(name, layer)
    memory = {role: list(by_width.values()) for role, by_width in blocks.items()}
    try:
        yield DualAdapters(layers, basis, memory, switchboard, sharing_inputs=sharing_inputs)
    finally:
        for name, linear in linears.items():
            denoiser.set_submodule(name, linear)


def _find_linears(denoiser: nn.Module, names: Iterable[str]) -> dict[str, nn.Linear]:
    """The linear layers of these names. ValueError where one is none: what is learned for it would have no effect."""
    linears = {}
    for name in names:
        try:
            module = denoiser.get_submodule(name)
        except AttributeError:
            module = None
        if not isinstance(module, nn.Linear):
            raise ValueError(f"the base has no linear layer {name}; the adapter is one of another base")
        linears[name] = module
    return linears
