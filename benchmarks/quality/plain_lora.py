"""The baselines' training: LoRAs whose random A is trained together with B, in PEFT's own layers, one pair at a time.

Two of them trained like ours are the method without orthogonality; one on the style picture alone is what people call a
DreamBooth LoRA.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from benchmarks.published import PublishedTraining
from pairlora.adapters import Role
from pairlora.adapters.files import Matrices
from pairlora.bases.interface import Base
from pairlora.config import TrainConfig
from pairlora.training.packs import TrainedPair, TrainingPair


def train_free(base: Base, pair: TrainingPair, train: TrainConfig, *, style_only: bool) -> TrainedPair:
    """The adapters of one pair after the recipe's steps; with `style_only` all of them are the style's."""
    torch.manual_seed(train.seed)  # PEFT draws A from the global state
    with published_training(base, pair, train, roles=(Role.STYLE,) if style_only else tuple(Role)) as training:
        for step in range(train.steps):
            training.take_pass(Role.STYLE, step) if style_only else _take_step(training, step)
        matrices = {role: read_matrices(base, role) for role in training.roles}
    shared = {role: share_inputs(found) for role, found in matrices.items()}  # as the store keeps them: one A for each width
    return TrainedPair("trained A", {Role.CONTENT: silence(shared[Role.STYLE])} | shared)


def _take_step(training: PublishedTraining, step: int) -> None:
    training.take_pass(Role.CONTENT, step)
    if step >= training.train.content_steps:
        training.take_pass(Role.STYLE, step)


@contextmanager
def published_training(base: Base, pair: TrainingPair, train: TrainConfig, roles: tuple[Role, ...]) -> Iterator[PublishedTraining]:
    """A training in PEFT's layers, which leave the base when the block ends."""
    try:
        yield PublishedTraining(base, pair, train, roles=roles)
    finally:
        base.denoiser.unload_lora()
        base.denoiser.requires_grad_(False)


def read_matrices(base: Base, role: Role) -> Matrices:
    """`{layer: (A (rank, in), B (out, rank))}` of one role, float32 copies on the CPU."""
    layers = {name: module for name, module in base.denoiser.named_modules() if hasattr(module, "lora_A")}
    return {name: (_copy(layer.lora_A[role].weight), _copy(layer.lora_B[role].weight)) for name, layer in layers.items()}


def _copy(tensor: Any) -> torch.Tensor:
    return tensor.detach().float().cpu().clone()


def share_inputs(matrices: Matrices) -> Matrices:
    """The same updates over one A for each input width, as the sampler's layers have it: `B A = (B A) I`.

    All layers get the rank of the widest input; rows of zeros fill up the others.
    """
    rank = max(a.shape[1] for a, _ in matrices.values())
    return {layer: (torch.eye(rank, a.shape[1]), functional.pad(b @ a, (0, rank - a.shape[1]))) for layer, (a, b) in matrices.items()}


def silence(matrices: Matrices) -> Matrices:
    """An adapter on the same layers that does nothing, of rank 1."""
    return {layer: (torch.eye(1, a.shape[1]), torch.zeros(len(b), 1)) for layer, (a, b) in matrices.items()}


def make_silent(base: Base) -> TrainedPair:
    """Adapters that do nothing: what is then drawn in a style comes from its words."""
    shapes = {name: base.denoiser.get_submodule(name) for name in base.attention_projections()}
    nothing = {name: (torch.eye(1, layer.in_features), torch.zeros(layer.out_features, 1)) for name, layer in shapes.items()}
    return TrainedPair("none", dict.fromkeys(Role, nothing))
