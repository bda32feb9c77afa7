"""AdamW on the adapters of one role: layers of one width are one tensor, so that a step is a few operations, not thousands."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pairlora.adapters.dual import DualAdapters, Role
from pairlora.config import TrainConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


class RoleOptimizer:
    """Gradients, gradient norms and AdamW steps of one role. Slots never mix: dimension 1 of every tensor is the pairs'."""

    def __init__(self, adapters: DualAdapters, role: Role, train: TrainConfig):
        self.clip = train.gradient_clip
        self.values = [nn.Parameter(block) for block in adapters.blocks[role]]
        self.gradients = [torch.zeros_like(block) for block in adapters.blocks[role]]
        for values, gradients in zip(self.values, self.gradients, strict=True):
            values.grad = gradients
        self._share_gradients(adapters.parameters(role))
        self.adamw = torch.optim.AdamW(self.values, lr=train.learning_rate, betas=(0.9, 0.999), weight_decay=train.weight_decay, fused=True)
        for values in self.values:
            moments = {name: torch.zeros_like(values) for name in MOMENTS}
            self.adamw.state[values] = {"step": torch.zeros((), device=values.device), **moments}

    def _share_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Let the backward passes of all layers add into the gradients here: each layer's B is a part of a block."""
        starts = {
            part.data_ptr(): gradient
            for block, whole in zip(self.values, self.gradients, strict=True)
            for part, gradient in zip(block, whole, strict=True)
        }
        for parameter in parameters:
            parameter.grad = starts[parameter.data_ptr()]

    def norms(self) -> Tensor:
        """Gradient norm of each slot, (slots,), over all layers."""
        return torch.stack([torch.linalg.vector_norm(gradients, dim=(0, 2, 3)) for gradients in self.gradients]).norm(dim=0)

    def step(self, norms: Tensor, alive: Sequence[int]) -> None:
        """One step of the slots that are alive, clipped by their own norms; then the gradients are zero again."""
        dead = sorted(set(range(len(norms))) - set(alive))
        factors = None if self.clip is None else (self.clip / (norms + 1e-12)).clamp(max=1.0)[:, None, None]
        for gradients in self.gradients:
            if factors is not None:
                gradients.mul_(factors)
            if dead:
                gradients[:, dead] = 0  # they need not be numbers
        self.adamw.step()
        for gradients in self.gradients:
            gradients.zero_()

    @torch.no_grad()
    def silence(self, slot: int) -> None:
        """Take a slot out: its values and moments become zero."""
        for values in self.values:
            values[:, slot] = 0
            for name in MOMENTS:
                self.adamw.state[values][name][:, slot] = 0

    def describe(self, slot: int) -> dict[str, Tensor]:
        """What a slot needs to go on later: B and its moments by block, each (layers, out, rank), copies on the CPU."""
        described = {}
        for index, values in enumerate(self.values):
            tensors = {"values": values.detach()} | {name: self.adamw.state[values][name] for name in MOMENTS}
            described |= {f"{name}.{index}": tensor[:, slot].cpu().clone() for name, tensor in tensors.items()}
        return described

    @torch.no_grad()
    def restore(self, slot: int, described: Mapping[str, Tensor], steps: int) -> None:
        """Put what `describe` gave into a slot. `steps` were taken before, by all slots alike."""
        for index, values in enumerate(self.values):
            state = self.adamw.state[values]
            values[:, slot] = described[f"values.{index}"].to(values)
            for name in MOMENTS:
                state[name][:, slot] = described[f"{name}.{index}"].to(values)
            state["step"].fill_(steps)
