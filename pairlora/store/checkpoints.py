"""Checkpoints of trainings: one file a pair, so that a training that is killed goes on whatever pack its pair is in next."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pairlora.adapters.routing import Role
from pairlora.errors import CorruptObjectError
from pairlora.records import StepLoss

WRITING_SHARE = 20
"""Between two checkpoints lies at least this many times what writing the last one took."""

log = logging.getLogger(__name__)


class CheckpointStore(Protocol):
    """Where checkpoints lie, by training fingerprint; RunStore is one."""

    def put_checkpoint(self, fingerprint: str, data: bytes) -> None:
        """Store the checkpoint of a training in place of its older one."""
        ...

    def read_checkpoint(self, fingerprint: str) -> bytes | None:
        """The last checkpoint of a training, None where there is none. CorruptObjectError where it is damaged."""
        ...

    def drop_checkpoint(self, fingerprint: str) -> None:
        """Remove the checkpoint of a training; no error where there is none."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """Where the training of one pair stood: steps taken, B and its moments by role, the losses so far.

    There is no random state: draws derive from (fingerprint, step). A is derived again and must have the same digest.
    """

    step: int
    basis_digest: str
    tensors: Mapping[Role, Mapping[str, Tensor]]
    losses: Sequence[StepLoss] = ()


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """A safetensors file of a checkpoint."""
    tensors = {f"{role}/{name}": tensor.contiguous() for role, named in checkpoint.tensors.items() for name, tensor in named.items()}
    losses = [loss.model_dump() for loss in checkpoint.losses]
    return save(tensors, {"step": str(checkpoint.step), "basis_digest": checkpoint.basis_digest, "losses": json.dumps(losses)})


def decode_checkpoint(data: bytes) -> Checkpoint:
    """The checkpoint of a file that `encode_checkpoint` wrote; else CorruptObjectError."""
    try:
        tensors = load(data)
        facts = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        named: dict[Role, dict[str, Tensor]] = {role: {} for role in Role}
        for key, tensor in tensors.items():
            role, _, name = key.partition("/")
            named[Role(role)][name] = tensor
        losses = tuple(StepLoss.model_validate(loss) for loss in json.loads(facts["losses"]))
        return Checkpoint(int(facts["step"]), facts["basis_digest"], named, losses)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CorruptObjectError(f"not a checkpoint: {error}") from error


class Checkpoints:
    """Reads and writes the checkpoints of a pack, the latter not too often."""

    def __init__(self, store: CheckpointStore, seconds: float):
        """`seconds` lie between two checkpoints at least; 0 writes one after every step, however long that takes."""
        self._store = store
        self._seconds = seconds
        self._pause = seconds
        self._written = time.monotonic()
        self._there: set[str] = set()

    def read(self, fingerprint: str, basis_digest: str) -> Checkpoint | None:
        """The checkpoint of a training; None, with a warning, where it is damaged or was made on another basis."""
        try:
            if (data := self._store.read_checkpoint(fingerprint)) is None:
                return None
            self._there.add(fingerprint)
            checkpoint = decode_checkpoint(data)
        except CorruptObjectError as error:
            self._there.add(fingerprint)
            log.warning("checkpoint of %s: %s; training from the beginning", fingerprint[:12], error)
            return None
        if checkpoint.basis_digest != basis_digest:
            log.warning("checkpoint of %s was made on another basis; training from the beginning", fingerprint[:12])
            return None
        return checkpoint

    @property
    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() - self._written >= self._pause

    def write(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Write checkpoints by fingerprint, and put the next ones off by what that took."""
        started = time.monotonic()
        for fingerprint, checkpoint in checkpoints.items():
            self._there.add(fingerprint)
            self._store.put_checkpoint(fingerprint, encode_checkpoint(checkpoint))
        self._written = time.monotonic()
        self._pause = max(self._seconds, WRITING_SHARE * (self._written - started)) if self._seconds else 0.0

    def drop(self, fingerprint: str) -> None:
        """Remove what was found or written of a training that is done; a bucket is not asked where that is nothing."""
        if fingerprint in self._there:
            self._store.drop_checkpoint(fingerprint)
            self._there.discard(fingerprint)
