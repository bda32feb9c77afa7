"""How many pairs fit into a device, and what leaves it while they train."""

import pytest
import torch
from pydantic import ValidationError
from tiny_base import TRAIN, make_base, make_picture

from pairlora.config import ExecutionConfig
from pairlora.training.memory import CPU_ROWS, HEADROOM, choose_pack_size, encoders_parked, extrapolate_pack
from pairlora.training.packs import TrainingPair, open_pack

GIB = 1024**3


def never(count):
    raise AssertionError("nothing is measured here")


@pytest.mark.parametrize("free", [0, 3 * GIB, 4 * GIB, 10 * GIB, 70 * GIB])
def test_a_pack_uses_the_free_memory_and_leaves_the_headroom(free):
    fixed, each = 2 * GIB, GIB  # a step of K pairs needs fixed + K each
    pairs = extrapolate_pack(fixed + each, fixed + 2 * each, free)
    assert pairs == 1 or fixed + pairs * each <= free * (1 - HEADROOM)
    assert fixed + (pairs + 1) * each > free * (1 - HEADROOM)


@pytest.mark.parametrize("draws", [1, 4, 8, 100])
def test_a_pack_on_the_cpu_follows_the_rule(draws):
    pairs = choose_pack_size(torch.device("cpu"), draws, 1000, never)
    assert pairs == 1 or 2 * draws * pairs <= CPU_ROWS
    assert 2 * draws * (pairs + 1) > CPU_ROWS
    assert choose_pack_size(torch.device("cpu"), draws, 1, never) == 1


def test_a_pack_size_is_a_number_or_auto():
    assert ExecutionConfig(pack_size=3).largest_pack == 3
    assert ExecutionConfig(pack_size="auto").largest_pack > 1
    for wrong in (0, "many"):
        with pytest.raises(ValidationError, match="pack_size"):
            ExecutionConfig.model_validate({"pack_size": wrong})


def test_on_the_cpu_nothing_moves():
    base = make_base(torch.float32)
    parameter = next(base.pipeline.vae.parameters())
    with encoders_parked(base):
        assert next(base.pipeline.vae.parameters()) is parameter


@pytest.mark.gpu
def test_encoders_leave_the_device_during_training_and_come_back():
    base = make_base(torch.float32)
    base.pipeline.to("cuda")
    base.device = torch.device("cuda")
    pair = TrainingPair("pair", make_picture(0), make_picture(1), "a fox", "a fox in ink")
    with open_pack(base, [pair], TRAIN) as training:
        assert {parameter.device.type for parameter in base.pipeline.vae.parameters()} == {"cpu"}
        training.take_step(3)
    for part in (base.pipeline.vae, base.pipeline.text_encoder, base.pipeline.text_encoder_2):
        assert {parameter.device.type for parameter in part.parameters()} == {"cuda"}
