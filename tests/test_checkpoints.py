"""Laws of checkpoints: a training that is stopped and goes on equals one that was never stopped, bit for bit (method law k)."""

import logging
import uuid

import pytest
import torch
from tiny_base import TRAIN, make_base, make_picture

from pairlora.adapters import Role
from pairlora.errors import CorruptObjectError, StoppedError
from pairlora.records import StepLoss
from pairlora.store.checkpoints import Checkpoint, Checkpoints, decode_checkpoint, encode_checkpoint
from pairlora.store.run_store import RunStore
from pairlora.training.packs import TrainingPair, train_pack

LONGER = TRAIN.model_copy(update={"steps": 9, "content_steps": 3})


def make_pair(seed):
    return TrainingPair(f"pair-{seed}", make_picture(seed), make_picture(seed + 100), "a photo of a fox", "a photo of a fox in ink")


@pytest.fixture(scope="module")
def base():
    return make_base(torch.float32)


@pytest.fixture
def memory():
    return RunStore(f"memory://{uuid.uuid4().hex}")


def train(base, seeds, store, *, stop_at=None, train=LONGER):
    """Train pairs with a checkpoint after every step; with `stop_at`, the run ends after that many. Gives results and steps taken."""
    taken = []

    def listen(event):
        taken.append(event.done)
        if event.done == stop_at:
            raise StoppedError("the run is ending")

    pairs = [make_pair(seed) for seed in seeds]
    return train_pack(base, pairs, train, listen, checkpoints=Checkpoints(store, 0)), taken


def assert_equal_bits(one, other):
    assert [loss.model_dump() for loss in one.losses] == [loss.model_dump() for loss in other.losses]
    for role in Role:
        assert all(torch.equal(b, other.matrices[role][name][1]) for name, (_, b) in one.matrices[role].items())


@pytest.mark.parametrize("stop_at", [1, 3, 6])
@pytest.mark.parametrize("update", ["joint", "alternating"])
def test_stopped_and_resumed_equals_never_stopped(base, memory, stop_at, update):
    chosen = LONGER.model_copy(update={"update": update})
    straight = train_pack(base, [make_pair(0), make_pair(1)], chosen)
    with pytest.raises(StoppedError):
        train(base, [0, 1], memory, stop_at=stop_at, train=chosen)
    resumed, taken = train(base, [0, 1], memory, train=chosen)
    assert taken == list(range(stop_at + 1, 10))
    for one, other in zip(straight, resumed, strict=True):
        assert_equal_bits(one, other)


def test_pairs_of_different_steps_each_go_on_where_they_stood(base, memory):
    straight = train_pack(base, [make_pair(0)], LONGER)[0]
    with pytest.raises(StoppedError):
        train(base, [0], memory, stop_at=5)
    (resumed, fresh), taken = train(base, [0, 1], memory)
    assert taken == [6, 7, 8, 9, *range(1, 10)]
    assert_equal_bits(straight, resumed)
    assert_equal_bits(train_pack(base, [make_pair(1)], LONGER)[0], fresh)


def test_a_damaged_checkpoint_is_ignored_with_a_warning(base, memory, caplog):
    with pytest.raises(StoppedError):
        train(base, [0], memory, stop_at=5)
    memory.put_checkpoint("pair-0", b"no checkpoint")
    with caplog.at_level(logging.WARNING):
        (result,), taken = train(base, [0], memory)
    assert taken == list(range(1, 10))
    assert "training from the beginning" in caplog.text
    assert_equal_bits(train_pack(base, [make_pair(0)], LONGER)[0], result)


def test_a_checkpoint_of_another_basis_is_ignored_with_a_warning(base, memory, caplog):
    with pytest.raises(StoppedError):
        train(base, [0], memory, stop_at=5)
    with caplog.at_level(logging.WARNING):
        _, taken = train(base, [0], memory, train=LONGER.model_copy(update={"basis_seed": 1}))
    assert taken == list(range(1, 10))
    assert "another basis" in caplog.text


def test_a_checkpoint_comes_back_as_it_was_written():
    loss = StepLoss(step=3, content_loss=0.1, style_loss=None, content_gradient_norm=1 / 3, style_gradient_norm=None)
    tensors = {role: {"values.0": torch.randn(2, 5, 4), "exp_avg.0": torch.randn(2, 5, 4)} for role in Role}
    again = decode_checkpoint(encode_checkpoint(Checkpoint(3, "digest", tensors, (loss,))))
    assert (again.step, again.basis_digest, again.losses) == (3, "digest", (loss,))
    assert all(torch.equal(tensor, again.tensors[role][name]) for role in Role for name, tensor in tensors[role].items())


def test_what_is_no_checkpoint_is_refused():
    whole = encode_checkpoint(Checkpoint(3, "digest", {Role.STYLE: {"values.0": torch.ones(3)}}))
    for data in (b"", b"no checkpoint", whole[:-1], whole.replace(b"style/values", b"other/values"), whole.replace(b'"step"', b'"stop"')):
        with pytest.raises(CorruptObjectError):
            decode_checkpoint(data)


def test_checkpoints_are_written_no_more_often_than_asked(memory):
    checkpoint = {"pair": Checkpoint(1, "digest", {Role.STYLE: {"values.0": torch.ones(3)}})}
    always, seldom = Checkpoints(memory, 0), Checkpoints(memory, 3600)
    assert always.due
    assert not seldom.due
    for checkpoints in (always, seldom):
        checkpoints.write(checkpoint)
    assert always.due
    assert not seldom.due


# In the store


def test_a_checkpoint_replaces_the_older_one(store: RunStore):
    assert store.read_checkpoint("abc") is None
    for data in (b"first", b"second", b"second"):
        store.put_checkpoint("abc", data)
        assert store.read_checkpoint("abc") == data
    assert len(store._objects.keys("checkpoints/abc")) == 2
    assert store.read_checkpoint("abd") is None


def test_a_dropped_checkpoint_leaves_nothing(store: RunStore):
    store.drop_checkpoint("abc")
    store.put_checkpoint("abc", b"data")
    store.drop_checkpoint("abc")
    assert store.read_checkpoint("abc") is None
    assert store._objects.keys("checkpoints/abc") == []


def test_a_damaged_checkpoint_of_the_store_is_found(store: RunStore):
    store.put_checkpoint("abc", b"data")
    (payload,) = [key for key in store._objects.keys("checkpoints/abc") if key.endswith(".safetensors")]
    store._objects.write(payload, b"dat")
    with pytest.raises(CorruptObjectError):
        store.read_checkpoint("abc")


def test_checkpoints_of_trainings_that_are_done_are_removed_and_no_others(store: RunStore):
    store.drop_done_checkpoints({"abc"})
    for fingerprint in ("abc", "abd"):
        store.put_checkpoint(fingerprint, b"data")
    store.drop_done_checkpoints({"abc", "xyz"})
    assert store.read_checkpoint("abc") is None
    assert store._objects.keys("checkpoints/abc") == []
    assert store.read_checkpoint("abd") == b"data"
