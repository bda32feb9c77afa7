"""Styles of different bases, ranks and layers share a forward, and each does what it does alone."""

import pytest
import torch
from tiny_base import SAMPLE, TRAIN, make_base

from pairlora.adapters import Role, Segment
from pairlora.adapters.stacking import styles_attached
from pairlora.sampling.guidance import guide
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm
from pairlora.training.packs import fresh_adapters

PROMPT, INK, CLAY = "a flat icon of a fox", "a flat icon of a fox in ink", "a flat icon of a fox in clay"


def make_style(base, basis_seed: int, seed: int, **train):
    """A random style adapter on the basis of a seed."""
    with fresh_adapters(base, TRAIN.model_copy(update={"basis_seed": basis_seed} | train), 1) as adapters:
        generator = torch.Generator().manual_seed(seed)
        for parameter in adapters.parameters(Role.STYLE):
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter)
        return adapters.extract(0, Role.STYLE)


def make_foreign(base, seed: int):
    """An adapter as other trainers write it: an A for every layer, ranks that differ, and some layers left alone."""
    generator = torch.Generator().manual_seed(seed)
    style = {}
    for index, name in enumerate(base.attention_projections()[::2]):
        linear, rank = base.denoiser.get_submodule(name), 2 + index % 3
        sizes = ((rank, linear.in_features), (linear.out_features, rank))
        a, b = (0.2 * torch.randn(size, generator=generator) for size in sizes)
        style[name] = (a, b)
    return style


def predict(base, styles, slot: int, prompt: str) -> torch.Tensor:
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0)).double()
    with styles_attached(base.denoiser, styles) as adapters, adapters.routed([Segment(0, 1, Role.STYLE, (slot,))]), torch.inference_mode():
        return base.predict(latents, torch.tensor([400]), base.encode_prompts([prompt]), 32)


def predict_densely(base, style, prompt: str) -> torch.Tensor:
    """With `W0 + B A` in the place of W0."""
    before = {}
    for name, (a, b) in style.items():
        weight = base.denoiser.get_submodule(name).weight
        before[name] = weight.data
        weight.data = weight.data + (b.double() @ a.double())
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        predicted = base.predict(latents, torch.tensor([400]), base.encode_prompts([prompt]), 32)
    for name, data in before.items():
        base.denoiser.get_submodule(name).weight.data = data
    return predicted


@pytest.fixture(scope="module")
def styles(base):
    return [
        make_style(base, 0, 1),
        make_style(base, 7, 2),
        make_style(base, 0, 3),
        make_style(base, 9, 4, style_rank=2),
        make_foreign(base, 5),
    ]


def test_each_style_of_a_stack_is_its_own_dense_update(base, styles):
    for slot, style in enumerate(styles):
        assert torch.allclose(predict(base, styles, slot, INK), predict_densely(base, style, INK), atol=1e-9)


def test_styles_of_one_basis_share_its_rows(base, styles):
    same, other = [styles[0], styles[2]], [styles[0], styles[1]]
    widths = []
    for chosen in (same, other):
        with styles_attached(base.denoiser, chosen) as adapters:
            widths.append({len(layer.a[Role.STYLE]) for layer in adapters.layers.values()})
    assert widths == [{TRAIN.style_rank}, {2 * TRAIN.style_rank}]


def test_the_sampler_blends_styles_of_different_bases_also_away_from_one(base, styles):
    sample = SAMPLE.model_copy(update={"steps": 1, "onset": 1000})
    terms = (StyleTerm(0, INK, 1.5), StyleTerm(1, CLAY, -0.5), StyleTerm(4, INK, 0.25))
    with styles_attached(base.denoiser, styles) as adapters:
        drawn = Sampler(base, adapters, sample).draw_latents([ImageRequest(PROMPT, 0, terms)])
    scheduler = base.make_scheduler(None, 1)
    (t,) = scheduler.timesteps
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0)).double()
    told = {prompt: base.encode_prompts([prompt]) for prompt in ("", PROMPT, INK, CLAY)}

    def predict_alone(prompt: str, style: dict | None = None) -> torch.Tensor:
        route = [] if style is None else [Segment(0, 1, Role.STYLE, (0,))]
        with torch.inference_mode(), styles_attached(base.denoiser, [style or styles[0]]) as adapters, adapters.routed(route):
            return base.predict(noise, t.expand(1), told[prompt], 32)

    led = [predict_alone(INK, styles[0]), predict_alone(CLAY, styles[1]), predict_alone(INK, styles[4])]
    eps = guide(predict_alone(""), predict_alone(PROMPT), led, guidance_scale=3.0, strengths=(1.5, -0.5, 0.25))
    assert torch.allclose(drawn, scheduler.step(eps, t, noise, return_dict=False)[0], atol=1e-9)


def test_an_adapter_of_another_base_is_refused_by_name(base):
    with (
        pytest.raises(ValueError, match="no linear layer somewhere"),
        styles_attached(base.denoiser, [{"somewhere.to_q": (torch.zeros(1, 4), torch.zeros(4, 1))}]),
    ):
        pass
    assert make_base().attention_projections() == base.attention_projections()
