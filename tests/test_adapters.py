"""Laws of the dual adapters: orthogonal by construction, routed by rows, absent when not routed."""

import pytest
import torch
from tiny_base import TRAIN, make_base

from pairlora.adapters import Role, Segment, split_basis
from pairlora.errors import RankError
from pairlora.training import fresh_adapters


@pytest.fixture
def base():
    return make_base()


def attach_random(base, slots):
    """Adapters with random B in every slot of both roles."""
    context = fresh_adapters(base, TRAIN, slots)
    adapters = context.__enter__()
    generator = torch.Generator().manual_seed(1)
    for role in Role:
        for parameter in adapters.parameters(role):
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return adapters, context


def predict(base, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((rows, 4, 8, 8), generator=generator, dtype=torch.float64)
    conditions = base.encode_prompts(["a flat icon of a fox"] * rows)
    with torch.inference_mode():
        return base.predict(latents, torch.full((rows,), 500), conditions, 32)


@pytest.mark.parametrize("width", [96, 640, 2048])
def test_content_and_style_directions_are_orthonormal(width):
    content, style = split_basis(width, 32, 32, seed=3)
    assert (content @ style.T).abs().max() < 1e-7
    assert torch.allclose(content @ content.T, torch.eye(32), atol=1e-6)
    assert torch.allclose(style @ style.T, torch.eye(32), atol=1e-6)


def test_seeds_give_different_bases_and_one_seed_the_same():
    assert torch.equal(split_basis(64, 8, 8, seed=0)[0], split_basis(64, 8, 8, seed=0)[0])
    assert not torch.allclose(split_basis(64, 8, 8, seed=0)[0], split_basis(64, 8, 8, seed=1)[0])


def test_ranks_that_exceed_a_layer_name_the_remedy():
    with pytest.raises(RankError, match="content_rank \\+ style_rank = 40 exceeds layer width 32; lower one of the ranks"):
        split_basis(32, 20, 20, seed=0)


def test_every_attention_projection_of_the_denoiser_is_found(base):
    names = base.attention_projections()
    # 2 down, 1 middle and 4 up transformer blocks, two attentions each, four projections each
    assert len(names) == (2 + 1 + 4) * 2 * 4
    assert all(name.endswith(("to_q", "to_k", "to_v", "to_out.0")) for name in names)


def test_rows_without_a_routing_see_the_base_alone(base):
    plain = predict(base, 2)
    _, context = attach_random(base, slots=1)
    assert torch.equal(predict(base, 2), plain)
    context.__exit__(None, None, None)
    assert torch.equal(predict(base, 2), plain)


def test_a_segment_changes_its_own_rows_and_no_other(base):
    adapters, _ = attach_random(base, slots=2)
    plain = predict(base, 4)
    with adapters.routed([Segment(1, 3, Role.STYLE, (1, 0))]):
        routed = predict(base, 4)
    assert torch.allclose(routed[[0, 3]], plain[[0, 3]], atol=1e-12)
    assert (routed[[1, 2]] - plain[[1, 2]]).abs().amax(dim=(1, 2, 3)).min() > 1e-4


def test_a_slot_acts_as_the_merged_weight_would(base):
    adapters, context = attach_random(base, slots=2)
    with adapters.routed([Segment(0, 2, Role.STYLE, (1,)), Segment(0, 2, Role.CONTENT, (1,))]):
        routed = predict(base, 2)
    merged = {role: adapters.extract(1, role) for role in Role}
    context.__exit__(None, None, None)
    for matrices in merged.values():
        for name, (a, b) in matrices.items():
            base.denoiser.get_submodule(name).weight.data += (b.double() @ a.double()).to(torch.float64)
    assert torch.allclose(predict(base, 2), routed, atol=1e-6)


def test_a_detached_segment_sends_no_gradient(base):
    adapters, _ = attach_random(base, slots=1)
    latents = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    conditions = base.encode_prompts(["a fox"])
    segments = [Segment(0, 1, Role.CONTENT, (0,), detached=True), Segment(0, 1, Role.STYLE, (0,))]
    with adapters.routed(segments):
        base.predict(latents, torch.tensor([10]), conditions, 32).square().mean().backward()
    assert all(parameter.grad is None for parameter in adapters.parameters(Role.CONTENT))
    assert all(parameter.grad is not None for parameter in adapters.parameters(Role.STYLE))


def test_an_adapter_of_another_basis_is_refused(base):
    adapters, _ = attach_random(base, slots=1)
    foreign = {name: (a + 1, b) for name, (a, b) in adapters.extract(0, Role.STYLE).items()}
    with pytest.raises(ValueError, match="another basis"):
        adapters.load(0, Role.STYLE, foreign)
