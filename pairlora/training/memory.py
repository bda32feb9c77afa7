"""The memory of a device during training: what can leave it, what can be computed again, and how many pairs fit into it."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pairlora.adapters.dual import DualAdapters
from pairlora.bases.interface import Base

HEADROOM = 0.1
"""Share of the free memory that a pack leaves alone: what fragments, and what differs from step to step."""

CPU_ROWS = 64
"""Rows of a joint forward from which on a CPU gains nothing more by packing (docs/benchmarks.md)."""


@contextmanager
def encoders_parked(base: Base) -> Iterator[None]:
    """Within the block, everything of a base but its denoiser lies in main memory; nothing moves where the device is the CPU."""
    if base.device.type == "cpu":
        yield
        return
    components = getattr(base, "pipeline", None)
    parts = [part for part in getattr(components, "components", {}).values() if isinstance(part, nn.Module) and part is not base.denoiser]
    for part in parts:
        part.to("cpu")
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        for part in parts:
            part.to(base.device)


@contextmanager
def recomputed(base: Base, adapters: DualAdapters) -> Iterator[None]:
    """Within the block, the denoiser's blocks keep their inputs alone and are computed again for the backward pass.

    The second computation takes place after the routing has ended, so it brings the route of the first along.
    """

    def run_checkpointed(block: Callable[..., Any], *inputs: Any) -> Any:
        route = adapters.route

        def run(*inputs: Any) -> Any:
            if adapters.route is route:
                return block(*inputs)
            with adapters.routed_again(route):
                return block(*inputs)

        return checkpoint(run, *inputs, use_reentrant=False)

    base.denoiser.enable_gradient_checkpointing(run_checkpointed)
    try:
        yield
    finally:
        base.denoiser.disable_gradient_checkpointing()


def extrapolate_pack(one: int, two: int, free: int) -> int:
    """How many pairs fit into `free` bytes where steps of one and of two pairs need `one` and `two`; at least 1."""
    each = max(1, two - one)
    return max(1, 1 + int(free * (1 - HEADROOM) - one) // each)


def choose_pack_size(device: torch.device, draws: int, pairs: int, take_step: Callable[[int], object]) -> int:
    """How many of `pairs` train in one batch.

    On CUDA by what `take_step(1)` and `take_step(2)` need of the free memory, if more than two are to be trained; elsewhere by a
    rule, as many as make `CPU_ROWS` rows of content and style.
    """
    if device.type != "cuda":
        return min(pairs, max(1, CPU_ROWS // (2 * draws)))
    if pairs <= 1:
        return pairs
    free, _ = torch.cuda.mem_get_info(device)
    try:
        one, two = (_measure_peak(device, take_step, count) for count in (1, 2))
    except torch.OutOfMemoryError:
        return 1
    return min(pairs, extrapolate_pack(one, two, free))


def _measure_peak(device: torch.device, take_step: Callable[[int], object], count: int) -> int:
    """Bytes that a step of `count` pairs needs beyond what was allocated before it."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    take_step(count)
    return torch.cuda.max_memory_allocated(device) - before
