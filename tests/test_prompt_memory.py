"""Keys and values of prompts are remembered within a drawing: the same pictures, within bounds, and nothing is left behind."""

import pytest
import torch
from styled_base import PROMPT, STYLED, random_styles, styled
from tiny_base import SAMPLE, make_base
from torch import nn

from pairlora.adapters import Role, Segment
from pairlora.bases.interface import Conditions
from pairlora.sampling.prompt_memory import remembering
from pairlora.sampling.sampler import ImageRequest, Sampler

KEYS = [("", None), (PROMPT, None), (STYLED, 0)]
ROUTING = [Segment(2, 3, Role.STYLE, (0,))]


@pytest.fixture(scope="module")
def base():
    return make_base()


@pytest.fixture
def adapters(base):
    with random_styles(base) as adapters:
        yield adapters


def predict(base, adapters, memory, t):
    """One forward of ∅, a prompt and a styled prompt at a timestep; with a memory where there is one."""
    x = torch.randn((3, *base.latent_shape(32)), generator=torch.Generator().manual_seed(t), dtype=torch.float64)
    told = base.encode_prompts([prompt for prompt, _ in KEYS])
    with torch.inference_mode(), adapters.routed(ROUTING):
        if memory is None:
            return base.predict(x, torch.full((3,), t), told, 32)
        with memory.reading(KEYS, told):
            return base.predict(x, torch.full((3,), t), told, 32)


def test_what_is_recalled_is_what_would_have_been_computed(base, adapters):
    expected = [predict(base, adapters, None, t) for t in (900, 500, 100)]
    with remembering(base.denoiser, list(adapters.layers)) as memory:
        found = [predict(base, adapters, memory, t) for t in (900, 500, 100)]
    cross = [name for name in adapters.layers if "attn2.to_k" in name or "attn2.to_v" in name]
    assert memory.recalled == 2 * len(cross) * len(KEYS) > 0
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(found, expected, strict=True))


def test_slots_are_told_apart(base, adapters):
    with remembering(base.denoiser, list(adapters.layers)) as memory:
        predict(base, adapters, memory, 900)
        told = base.encode_prompts([STYLED, STYLED])
        x = torch.randn((1, *base.latent_shape(32)), dtype=torch.float64).expand(2, -1, -1, -1)
        keys = [(STYLED, 0), (STYLED, 1)]
        with torch.inference_mode(), adapters.routed([Segment(0, 2, Role.STYLE, (0, 1))]):
            expected = base.predict(x, torch.full((2,), 5), told, 32)
            for _ in range(2):  # one forward learns the second slot, one recalls both
                with memory.reading(keys, told):
                    found = base.predict(x, torch.full((2,), 5), told, 32)
                assert torch.allclose(found, expected, atol=1e-9)
    assert (expected[0] - expected[1]).abs().max() > 1e-3


def test_nothing_is_left_on_the_layers(base, adapters):
    with pytest.raises(RuntimeError, match="on purpose"), remembering(base.denoiser, list(adapters.layers)):
        raise RuntimeError("on purpose")
    assert not any("forward" in vars(layer) for layer in adapters.layers.values())


def test_an_adapter_that_changed_between_two_drawings_is_seen(base, adapters):
    sampler = Sampler(base, adapters, SAMPLE)
    before = sampler.draw_latents([styled(2.0)])
    for parameter in adapters.parameters(Role.STYLE):
        parameter.data *= 0.5
    after = sampler.draw_latents([styled(2.0)])
    assert (before - after).abs().max() > 1e-3
    assert torch.equal(after, Sampler(base, adapters, SAMPLE).draw_latents([styled(2.0)]))


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0.0), (0.9, 0.0), (1.0, 1.0), (1.9, 1.0), (2.0, 2.0)])
def test_the_memory_stays_below_its_limit_and_changes_nothing(base, adapters, share, kept):
    """`share` is the limit in sizes of one forward's three keys, `kept` what is remembered of two forwards of three keys each."""
    expected = [predict(base, adapters, None, t) for t in (900, 100)]
    with remembering(base.denoiser, list(adapters.layers)) as memory:
        predict(base, adapters, memory, 900)
    size = memory.bytes
    with remembering(base.denoiser, list(adapters.layers), round(share * size)) as memory:
        other = base.encode_prompts(["a cat", "a dog", "a cow"])
        with torch.inference_mode(), memory.reading([("a cat", None), ("a dog", None), ("a cow", None)], other):
            base.predict(torch.zeros((3, *base.latent_shape(32)), dtype=torch.float64), torch.full((3,), 9), other, 32)
        found = [predict(base, adapters, memory, t) for t in (900, 100)]
    assert memory.bytes == kept * size
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(found, expected, strict=True))


class ChangingText(nn.Module):
    """A denoiser whose text states change from block to block, as in joint attention."""

    def __init__(self):
        super().__init__()
        self.embed, self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, states):
        text = self.embed(states)
        for layer in (self.first, self.second):
            text = text + layer(text) * x
        return text


def test_nothing_is_remembered_where_text_states_change():
    model, told = ChangingText(), Conditions({"states": torch.randn(2, 3, 4)})
    with torch.inference_mode(), remembering(model, ["first", "second"]) as memory:
        for x in (1.0, 2.0):
            with memory.reading([("a", None), ("b", None)], told):
                found = model(x, told.tensors["states"])
    assert (memory.recalled, memory.bytes) == (0, 0)
    assert torch.equal(found, model(2.0, told.tensors["states"]))


def test_pictures_need_no_adapter_to_remember(base):
    sampler = Sampler(base, None, SAMPLE)
    first, second = sampler.draw_latents([ImageRequest(PROMPT, 0)]), sampler.draw_latents([ImageRequest(PROMPT, 0)])
    assert torch.equal(first, second)
