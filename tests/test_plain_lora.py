"""Laws of the plain LoRA: a weight of 0 is the base, the published file in stock diffusers gives the same picture, weights scale B."""

import numpy as np
import pytest
import torch
from tiny_base import SAMPLE, TRAIN, make_base, make_picture, make_pipeline

from pairlora.adapters import Role
from pairlora.adapters.files import encode_adapter
from pairlora.bases.sdxl import SDXLBase
from pairlora.config import SampleConfig
from pairlora.execution.pipeline import style_attached
from pairlora.identity import identify_image
from pairlora.records import PlannedImage
from pairlora.sampling.plain_lora import PlainLoraBase, make_plain_sampler, scale_style
from pairlora.sampling.sampler import ImageRequest, Sampler
from pairlora.training.packs import TrainingPair, train_pack

PROMPT, SEED = "a cat in ink", 3


@pytest.fixture(scope="module")
def style():
    """A style adapter that changes pictures."""
    base = make_base(torch.float32)
    pair = TrainingPair("fox", make_picture(0), make_picture(1), "a fox", "a fox in ink")
    (trained,) = train_pack(base, [pair], TRAIN)
    return trained.matrices[Role.STYLE]


def draw_latents(base: SDXLBase, style, weight: float) -> torch.Tensor:
    with style_attached(base, scale_style(style, weight)) as adapters:
        plain = PlainLoraBase(base, adapters)
        return Sampler(plain, None, SAMPLE).draw_latents([ImageRequest(PROMPT, SEED)])  # pyright: ignore[reportArgumentType]


def test_a_weight_of_nothing_is_the_base(style):
    base = make_base()
    unstyled = Sampler(base, None, SAMPLE).draw_latents([ImageRequest(PROMPT, SEED)])
    assert torch.equal(draw_latents(base, style, 0.0), unstyled)
    assert not torch.allclose(draw_latents(base, style, 1.0), unstyled, atol=1e-3)


@pytest.mark.parametrize("weight", [0.4, 1.0])
def test_stock_diffusers_draws_the_same_with_the_file_at_that_weight(style, weight: float, tmp_path):
    """What `load_lora_weights`, `set_adapters` and the pipeline's own guidance give, from the same noise."""
    ours = draw_latents(make_base(), style, weight)
    pipeline = make_pipeline()
    (tmp_path / "style.safetensors").write_bytes(encode_adapter(style, {}))
    pipeline.load_lora_weights(tmp_path, weight_name="style.safetensors", adapter_name="style")
    pipeline.set_adapters(["style"], [weight])
    pipeline.to(torch.float64)
    stock = SDXLBase(pipeline, name="tiny", digest="tiny")
    theirs = Sampler(stock, None, SAMPLE).draw_latents([ImageRequest(PROMPT, SEED)])
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_pictures_do_not_depend_on_their_batch(style):
    base = make_base()
    with style_attached(base, scale_style(style, 0.8)) as adapters:
        both = make_plain_sampler(base, adapters, SAMPLE).draw([ImageRequest(PROMPT, SEED), ImageRequest("a dog in ink", 4)])
        alone = make_plain_sampler(base, adapters, SAMPLE).draw([ImageRequest(PROMPT, SEED)])
    assert np.array_equal(np.asarray(both[0]), np.asarray(alone[0]))


def test_the_weight_decides_the_picture_and_leaves_other_identities_as_they_are():
    planned = PlannedImage(prompt="a cat", style_prompt="a cat in ink", seed=3, strength=0.0)

    def identify(one: PlannedImage, adapter: str = "f") -> str:
        return identify_image(one, SampleConfig(), fingerprint=adapter, base_digest="b", dtype="float32")

    plain = planned.model_copy(update={"lora_weight": 0.8})
    assert len({identify(planned), identify(plain), identify(plain.model_copy(update={"lora_weight": 0.6}))}) == 3
    assert identify(plain) != identify(plain, adapter="g")
    assert identify(planned) == identify(planned, adapter="g")


def test_weights_are_positive_and_stand_once():
    for weights in ((0.0,), (-1.0,), (0.8, 0.8)):
        with pytest.raises(ValueError, match="lora_weights must hold positive values and none twice"):
            SampleConfig(lora_weights=weights)
