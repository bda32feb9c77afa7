"""What a store keeps of an adapter: A once, B for each, and from both the file that stock tools load, bit for bit."""

import hashlib
from pathlib import Path

import pytest
import torch
from staged_run import STARTED, draw_matrices

from pairlora.adapters import Role
from pairlora.adapters.files import encode_adapter
from pairlora.adapters.masters import read_adapter, rebuild_file, store_master
from pairlora.errors import CorruptObjectError
from pairlora.records import AdapterRecord
from pairlora.store.run_store import RunStore

FACTS = {role: {"role": str(role), "rank": "2", "family": "sdxl"} for role in Role}
TRAIN = {"content_rank": 2, "style_rank": 2, "basis_seed": 0}


def describe(store: RunStore, seed: int = 0, **fields) -> AdapterRecord:
    """The marker of a stored adapter."""
    fingerprint = f"{seed:064d}"
    fields = {"fingerprint": fingerprint, **(fields or store_master(store, fingerprint, draw_matrices(seed), FACTS, "unet"))}
    fields |= {"basis_digest": "", "train": TRAIN, "base": "sdxl", "base_digest": "", "losses": (), "seconds": 1.0, "device": "cpu"}
    return AdapterRecord.model_validate(fields | {"trained_at": STARTED})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(str(tmp_path / "store"))


def damage(store: RunStore, key: str) -> Path:
    path = Path(store.url) / key
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    return path


@pytest.mark.parametrize("role", Role)
def test_the_file_that_stock_tools_load_is_rebuilt_bit_for_bit(store: RunStore, role: Role):
    record = describe(store)
    whole = rebuild_file(store, record, role)
    assert whole == encode_adapter(draw_matrices()[role], FACTS[role])
    assert hashlib.sha256(whole).hexdigest() == getattr(record, f"{role}_whole_sha256")
    assert len(whole) == getattr(record, f"{role}_whole_bytes")


def test_the_layout_of_a_file_is_for_ever(store: RunStore):
    """Markers hold digests of rebuilt files: where this golden value moves, every adapter of every store looks damaged."""
    matrices = {"mid_block.attentions.0.to_q": (torch.arange(6.0).reshape(2, 3), torch.arange(8.0).reshape(4, 2))}
    whole = encode_adapter(matrices, {"rank": "2", "role": "style"})
    assert hashlib.sha256(whole).hexdigest() == "573bb04a028988ca289da27184885be7f861b299dbfa49621532d8b2a7d8672f"


def test_adapters_of_one_basis_share_their_a(store: RunStore):
    first, second = describe(store, 0), describe(store, 1)
    assert first.basis_url == second.basis_url
    assert first.style_url != second.style_url
    assert len(list((Path(store.url) / "bases").iterdir())) == 1


def test_a_damaged_b_is_found(store: RunStore):
    record = describe(store)
    damage(store, record.style_url)
    with pytest.raises(CorruptObjectError, match="has another digest than its marker states"):
        rebuild_file(store, record, Role.STYLE)
    rebuild_file(store, record, Role.CONTENT)


def test_a_damaged_basis_costs_no_adapter_where_it_can_be_drawn_again(store: RunStore):
    record = describe(store)
    path = damage(store, record.basis_url)
    assert rebuild_file(store, record, Role.STYLE) == encode_adapter(draw_matrices()[Role.STYLE], FACTS[Role.STYLE])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record.basis_sha256


def test_a_basis_that_cannot_be_drawn_again_is_an_error(store: RunStore):
    record = describe(store)
    path = damage(store, record.basis_url)
    other = record.model_copy(update={"train": TRAIN | {"basis_seed": 9}})
    with pytest.raises(CorruptObjectError, match="bases/"):
        read_adapter(store, other, Role.STYLE)
    path.unlink()
    with pytest.raises(CorruptObjectError, match="is missing"):
        read_adapter(store, other, Role.STYLE)


def test_a_store_that_loses_bits_is_found_before_the_marker_is_written(store: RunStore, monkeypatch: pytest.MonkeyPatch):
    write = store._objects.write
    monkeypatch.setattr(store._objects, "write", lambda key, data: write(key, data[:-1] + b"\0"))
    with pytest.raises(CorruptObjectError):
        store_master(store, "f" * 64, draw_matrices(), FACTS, "unet")


def test_an_adapter_of_a_store_of_before_is_still_read(store: RunStore):
    """Markers of such stores name no basis; their files are whole."""
    fields = {}
    for role, matrices in draw_matrices().items():
        stored = store.put_adapter_file("0" * 64, f"{role}.safetensors", encode_adapter(matrices, FACTS[role]))
        fields |= {f"{role}_url": stored.key, f"{role}_sha256": stored.sha256, f"{role}_bytes": stored.bytes}
    record = describe(store, **fields)
    found = read_adapter(store, record, Role.STYLE)
    assert found.denoiser == "unet"
    for layer, (a, b) in draw_matrices()[Role.STYLE].items():
        assert torch.equal(found.matrices[layer][0], a)
        assert torch.equal(found.matrices[layer][1], b)
    assert rebuild_file(store, record, Role.STYLE) == encode_adapter(draw_matrices()[Role.STYLE], FACTS[Role.STYLE])
