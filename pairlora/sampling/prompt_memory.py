"""What the denoiser makes of a prompt alone, kept for the length of a drawing: cross-attention keys and values.

A layer qualifies in the moment it is called: where its input is a tensor of the conditions itself, its output is a function
of prompt and adapter slot, and the same at every timestep. Nothing is assumed about the architecture; where text
states change from block to block, no layer qualifies and nothing is kept.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pairlora.bases.interface import Conditions

Key = tuple[str, int | None]
"""A prompt, and the style slot that it is read through; None is the base alone."""

MEMORY_BYTES = 2**30
"""Most bytes that one drawing keeps. SDXL in bfloat16: 26 MB a key."""


class PromptMemory:
    """Outputs of qualifying layers by key. A forward either learns the keys that are new in it, or recalls them all.

    `bytes` is what is kept, never more than `limit`; `recalled` counts the rows of layers that were not computed.
    """

    def __init__(self, limit: int = MEMORY_BYTES):
        self.limit = limit
        self.recalled = 0
        self.bytes = 0
        self._places: dict[Key, int] = {}
        self._tables: dict[nn.Module, Tensor] = {}
        self._told: tuple[Tensor, ...] = ()
        self._new: list[int] = []
        self._learning: dict[nn.Module, Tensor] = {}
        self._learnt_bytes = 0
        self._where: Tensor | None = None

    @contextmanager
    def reading(self, keys: Sequence[Key], conditions: Conditions) -> Iterator[None]:
        """Within the block one forward reads `conditions`, whose row k is that of `keys[k]`."""
        first = {key: index for index, key in reversed(list(enumerate(keys)))}
        fresh = [key for key in first if key not in self._places]
        self._new = [first[key] for key in fresh] if self._may_fit(len(fresh)) else []
        if not fresh:
            self._where = torch.tensor([self._places[key] for key in keys], device=conditions.device)
        self._told = tuple(conditions.tensors.values()) if self._new or not fresh else ()
        try:
            yield
            if self._new and self._learning:
                self._keep(fresh)
        finally:
            self._told, self._new, self._learning, self._learnt_bytes, self._where = (), [], {}, 0, None

    def _may_fit(self, keys: int) -> bool:
        each = self.bytes / max(1, len(self._places))
        return self.bytes + keys * each <= self.limit

    def _keep(self, fresh: Sequence[Key]) -> None:
        if self._places and self._learning.keys() != self._tables.keys():
            self._tables, self._places, self.bytes, self.limit = {}, {}, 0, -1  # layers that come and go cannot share places: keep nothing
            return
        for layer, rows in self._learning.items():
            self._tables[layer] = torch.cat([self._tables[layer], rows]) if self._places else rows
        self.bytes += self._learnt_bytes
        self._places |= {key: len(self._places) + index for index, key in enumerate(fresh)}

    def call(self, layer: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """What `forward` of the layer says to `x`, from memory where that can be."""
        if not any(x.data_ptr() == told.data_ptr() and x.shape == told.shape and x.stride() == told.stride() for told in self._told):
            return forward(x)
        if self._where is not None and layer in self._tables:
            self.recalled += len(x)
            return self._tables[layer].index_select(0, self._where)
        y = forward(x)
        if self._new:
            self._learn(layer, y[self._new])
        return y

    def _learn(self, layer: nn.Module, rows: Tensor) -> None:
        self._learning[layer] = rows
        self._learnt_bytes += rows.nbytes
        if self.bytes + self._learnt_bytes > self.limit:
            self._new, self._learning = [], {}


@contextmanager
def remembering(denoiser: nn.Module, names: Sequence[str], limit: int = MEMORY_BYTES) -> Iterator[PromptMemory]:
    """Within the block, the named layers go through one memory; afterwards they are as before, and the memory is gone."""
    memory = PromptMemory(limit)
    layers = [denoiser.get_submodule(name) for name in names]
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = _through(memory, layer, layer.forward)
    try:
        yield memory
    finally:
        for layer, own in zip(layers, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own


def _through(memory: PromptMemory, layer: nn.Module, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: memory.call(layer, forward, x)
