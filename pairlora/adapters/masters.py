"""An adapter as a store keeps it: B of each role, and the frozen A once for all adapters that share it.

The file that stock tools load is rebuilt from both, bit for bit: its digest stands in the marker.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from torch import Tensor

from pairlora.adapters.basis import Basis
from pairlora.adapters.files import Matrices, decode_adapter, encode_adapter, pick_facts, prefix_facts, read_tensors, serialise
from pairlora.adapters.routing import Role
from pairlora.errors import CorruptObjectError
from pairlora.records import AdapterRecord
from pairlora.store.run_store import RunStore, StoredObject

Frozen = Mapping[Role, Mapping[int, Tensor]]
"""The frozen A (rank, width) by role and width."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredAdapter:
    """One role of an adapter out of the store; `facts` are those of its training."""

    matrices: Matrices
    facts: dict[str, str]
    denoiser: str


def encode_basis(frozen: Frozen) -> bytes:
    """A safetensors file of the frozen A of both roles, by the name 'role.width'."""
    return serialise({f"{role}.{width}": a for role, by_width in frozen.items() for width, a in by_width.items()}, {"format": "pt"})


def encode_master(matrices: Matrices, facts: Mapping[str, str], denoiser: str) -> bytes:
    """A safetensors file of B alone; its header says the facts, and which width each layer's A has."""
    widths = {layer: a.shape[1] for layer, (a, _) in sorted(matrices.items())}
    header = {"format": "pt", "master.widths": json.dumps(widths), "master.denoiser": denoiser, **prefix_facts(facts)}
    return serialise({layer: b for layer, (_, b) in matrices.items()}, header)


def store_master(
    store: RunStore,
    fingerprint: str,
    matrices: Mapping[Role, Matrices],
    facts: Mapping[Role, Mapping[str, str]],
    denoiser: str,
    bases: MutableMapping[str, StoredObject] | None = None,
) -> dict[str, str | int]:
    """Write A and B, and give the fields of an AdapterRecord that say where they lie and what is rebuilt from them.

    All of it is read back before: CorruptObjectError where the store gives anything but the file that stock tools shall load.
    `bases` holds the A that the caller has had written and read back, by digest, and takes this one.
    """
    frozen = {role: {a.shape[1]: a for a, _ in layers.values()} for role, layers in matrices.items()}
    shared = encode_basis(frozen)
    basis = _store_basis(store, shared, {} if bases is None else bases)
    fields: dict[str, str | int] = {"basis_url": basis.key, "basis_sha256": basis.sha256, "basis_bytes": basis.bytes}
    for role, layers in matrices.items():
        master = store.put_adapter_file(fingerprint, f"{role}.b.safetensors", encode_master(layers, facts[role], denoiser))
        whole = encode_adapter(layers, facts[role], denoiser)
        fields |= {f"{role}_url": master.key, f"{role}_sha256": master.sha256, f"{role}_bytes": master.bytes}
        fields |= {f"{role}_whole_sha256": hashlib.sha256(whole).hexdigest(), f"{role}_whole_bytes": len(whole)}
        read = store.read_payload(master.key, master.sha256, master.bytes)
        _check_whole(_encode(join_master(read, shared, role)), str(fields[f"{role}_whole_sha256"]), store.url_of(master.key))
    return fields


def _store_basis(store: RunStore, data: bytes, bases: MutableMapping[str, StoredObject]) -> StoredObject:
    digest = hashlib.sha256(data).hexdigest()
    if digest not in bases:
        stored = store.put_basis(data)
        store.read_payload(stored.key, stored.sha256, stored.bytes)
        bases[digest] = stored
    return bases[digest]


def rebuild_file(store: RunStore, record: AdapterRecord, role: Role) -> bytes:
    """The file of one role that stock diffusers loads, the same bytes ever again. CorruptObjectError where it cannot be rebuilt."""
    if not record.basis_url:
        return _read_payload(store, record, role)
    whole = _encode(read_adapter(store, record, role))
    _check_whole(whole, getattr(record, f"{role}_whole_sha256"), store.url_of(getattr(record, f"{role}_url")))
    return whole


def read_adapter(store: RunStore, record: AdapterRecord, role: Role) -> StoredAdapter:
    """One role of a stored adapter. CorruptObjectError where its B is damaged, or its A is and cannot be drawn again.

    Stores of before the A had an object of its own hold the whole file, and their markers name no basis.
    """
    master = _read_payload(store, record, role)
    if not record.basis_url:
        matrices, facts = decode_adapter(master)
        return StoredAdapter(matrices, facts, next(iter(read_tensors(master)[0])).partition(".")[0])
    return join_master(master, _read_basis(store, record, master), role)


def join_master(master: bytes, basis: bytes, role: Role) -> StoredAdapter:
    """The A and B of an adapter by layer, from the two files that `store_master` writes."""
    tensors, header = read_tensors(master)
    frozen, _ = read_tensors(basis)
    widths = json.loads(header["master.widths"])
    matrices = {layer: (frozen[f"{role}.{widths[layer]}"], b) for layer, b in tensors.items()}
    return StoredAdapter(matrices, pick_facts(header), header["master.denoiser"])


def _encode(adapter: StoredAdapter) -> bytes:
    return encode_adapter(adapter.matrices, adapter.facts, adapter.denoiser)


def _check_whole(whole: bytes, sha256: str, url: str) -> None:
    if hashlib.sha256(whole).hexdigest() != sha256:
        raise CorruptObjectError(f"the file that is rebuilt from {url} has another digest than its training's; train again")


def _read_payload(store: RunStore, record: AdapterRecord, role: Role) -> bytes:
    return store.read_payload(getattr(record, f"{role}_url"), getattr(record, f"{role}_sha256"), getattr(record, f"{role}_bytes"))


def _read_basis(store: RunStore, record: AdapterRecord, master: bytes) -> bytes:
    """The stored A. Where it is damaged it is drawn again, so that one object does not cost all adapters; its digest decides."""
    try:
        return store.read_payload(record.basis_url, record.basis_sha256, record.basis_bytes)
    except CorruptObjectError:
        widths = set(json.loads(read_tensors(master)[1]["master.widths"]).values())
        ranks = (record.train["content_rank"], record.train["style_rank"])
        drawn = Basis.draw(widths, *ranks, record.train["basis_seed"])
        data = encode_basis({Role.CONTENT: drawn.content, Role.STYLE: drawn.style})
        if hashlib.sha256(data).hexdigest() != record.basis_sha256:
            raise
        log.warning("%s was damaged; drawn again, bit for bit", store.url_of(record.basis_url))
        store.put_basis(data)
        return data
