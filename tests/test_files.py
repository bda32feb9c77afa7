"""Adapter files: stock tools load them, they say the same thing (law f), and equal adapters give equal bytes."""

import json

import pytest
import torch
from tiny_base import TRAIN, make_base, make_picture

from pairlora.adapters import Role, Segment
from pairlora.adapters.files import decode_adapter, encode_adapter
from pairlora.errors import AdapterFileError
from pairlora.execution.pipeline import style_attached
from pairlora.training.packs import TrainingPair, train_pack


@pytest.fixture(scope="module")
def trained():
    longer = TRAIN.model_copy(update={"steps": 12, "learning_rate": 0.05})
    pair = TrainingPair("pair", make_picture(0), make_picture(1), "a fox", "a fox in ink")
    return train_pack(make_base(), [pair], longer)[0]


@pytest.fixture(scope="module")
def encoded(trained):
    return encode_adapter(trained.matrices[Role.STYLE], {"rank": "4", "role": "style"})


def predict(base, prompt="a fox in ink"):
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.inference_mode():
        return base.predict(latents, torch.tensor([400]), base.encode_prompts([prompt]), 32)


def test_stock_diffusers_loads_the_file_and_predicts_the_same(trained, encoded, tmp_path):
    (tmp_path / "style.safetensors").write_bytes(encoded)
    stock = make_base()
    plain = predict(stock)
    stock.pipeline.load_lora_weights(tmp_path, weight_name="style.safetensors")
    stock.pipeline.unet.to(torch.float64)
    ours = make_base()
    with style_attached(ours, trained.matrices[Role.STYLE]) as adapters, adapters.routed([Segment(0, 1, Role.STYLE, (0,))]):
        expected = predict(ours)
    assert torch.allclose(predict(stock), expected, atol=1e-6)
    assert (expected - plain).abs().max() > 1e-3


def test_a_file_gives_back_what_it_was_made_of(trained, encoded):
    matrices, facts = decode_adapter(encoded)
    assert facts == {"rank": "4", "role": "style"}
    for name, (a, b) in trained.matrices[Role.STYLE].items():
        assert torch.equal(matrices[name][0], a)
        assert torch.equal(matrices[name][1], b)


def test_equal_adapters_give_equal_bytes(trained, encoded):
    shuffled = dict(reversed(list(trained.matrices[Role.STYLE].items())))
    assert encode_adapter(shuffled, {"role": "style", "rank": "4"}) == encoded


def test_the_header_says_rank_and_alpha_in_the_words_of_peft(encoded):
    header = json.loads(encoded[8 : 8 + int.from_bytes(encoded[:8], "little")])["__metadata__"]
    peft = json.loads(header["lora_adapter_metadata"])
    assert peft["unet.r"] == peft["unet.lora_alpha"] == 4


@pytest.mark.parametrize("data", [b"", b"not safetensors at all", (2**60).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_no_adapter_is_named_so(data):
    with pytest.raises(AdapterFileError):
        decode_adapter(data)


def test_half_an_adapter_is_refused(trained, encoded):
    from safetensors.torch import load, save

    tensors = load(encoded)
    tensors.pop(sorted(name for name in tensors if "lora_B" in name)[0])
    with pytest.raises(AdapterFileError, match="lora_A and no lora_B"):
        decode_adapter(save(tensors))
