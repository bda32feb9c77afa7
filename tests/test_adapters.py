"""Laws of the dual adapters: orthogonal by construction, routed by rows, absent when not routed."""

import pytest
import torch
from diffusers.models.activations import GEGLU
from tiny_base import TRAIN, make_base

from pairlora.adapters import ConstantInputs, Role, Segment, split_basis
from pairlora.adapters.convolutions import ConvProducts, FrozenConv
from pairlora.adapters.onednn import multiply
from pairlora.adapters.products import frozen_products
from pairlora.errors import RankError
from pairlora.training.packs import fresh_adapters


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


JOINT = [
    Segment(0, 4, Role.CONTENT, (0, 1)),
    Segment(4, 8, Role.CONTENT, (0, 1), detached=True),
    Segment(4, 8, Role.STYLE, (0, 1)),
]


def measure_gradients(base, adapters, constants=None, conditions=None):
    """A prediction of a joint batch, two draws a pair, and the gradients of every B that it gives."""
    conditions = conditions or repeat_prompts(base)
    latents = torch.randn((8, 4, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for parameter in adapters.parameters(Role.CONTENT) + adapters.parameters(Role.STYLE):
        parameter.grad = None
    with adapters.routed(JOINT, constants):
        predicted = base.predict(latents, torch.full((8,), 300), conditions, 32)
    predicted.square().mean().backward()
    return predicted.detach(), [parameter.grad.clone() for role in Role for parameter in adapters.parameters(role)]


def repeat_prompts(base):
    """Conditions of two pairs and two roles, each row twice."""
    return base.encode_prompts(["a fox", "a cat", "a fox in ink", "a cat in ink"])[[0, 0, 1, 1, 2, 2, 3, 3]]


def test_gradients_are_those_of_merged_weights(base):
    adapters, context = attach_random(base, slots=2)
    ours = measure_gradients(base, adapters)[1]
    b = [parameter for role in Role for parameter in adapters.parameters(role)]

    def loss(place, change):
        with torch.no_grad():
            b[place] += change
        predicted = measure_gradients(base, adapters)[0]
        with torch.no_grad():
            b[place] -= change
        # the style rows see the content adapter without a gradient: they are no part of its loss
        return (predicted[:4] if place < len(b) // 2 else predicted).square().sum() / predicted.numel()

    for place in (0, 5, len(b) // 2 + 6, len(b) - 1):
        change = torch.randn(b[place].shape, generator=torch.Generator().manual_seed(place), dtype=torch.float64) * 1e-5
        slope = (loss(place, change) - loss(place, -change)) / 2
        assert slope.item() == pytest.approx((ours[place] * change).sum().item(), rel=1e-4), place
    context.__exit__(None, None, None)


def test_products_of_a_constant_text_change_neither_predictions_nor_gradients(base):
    adapters, context = attach_random(base, slots=2)
    conditions = repeat_prompts(base)
    plain, gradients = measure_gradients(base, adapters, None, conditions)
    constants = ConstantInputs(conditions.tensors.values(), repeats=2)
    for _ in range(2):  # computed, and remembered
        predicted, others = measure_gradients(base, adapters, constants, conditions)
        assert torch.allclose(predicted, plain, atol=1e-12)
        assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(gradients, others, strict=True))
    context.__exit__(None, None, None)


def test_layers_that_share_an_input_answer_as_they_do_alone(base):
    adapters, context = attach_random(base, slots=2)
    first, alone = measure_gradients(base, adapters)  # every layer for itself: who shares an input is learnt here
    again, together = measure_gradients(base, adapters)
    assert torch.allclose(first, again, atol=1e-12)
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(alone, together, strict=True))
    context.__exit__(None, None, None)


def test_nothing_of_one_forward_reaches_the_next(base):
    adapters, context = attach_random(base, slots=2)
    segments = [Segment(0, 2, Role.STYLE, (0, 1))]
    latents = torch.randn((2, 4, 8, 8), dtype=torch.float64)
    seen = []
    with torch.inference_mode():
        for scale in (1.0, 2.0, 1.0):
            with adapters.routed(segments):
                seen.append(base.predict(latents * scale, torch.tensor([10, 10]), base.encode_prompts(["a fox", "a cat"]), 32))
    assert torch.allclose(seen[0], seen[2], atol=1e-12)
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)
    context.__exit__(None, None, None)


@pytest.mark.parametrize("size", [4, 400])
def test_frozen_layers_answer_and_send_back_what_their_own_forwards_do(size):
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.Flatten(2), torch.nn.Linear(size, 96))
    layers.requires_grad_(False)
    x = torch.randn(2, 3, 2 * round(size**0.5), 2 * round(size**0.5), requires_grad=True)
    plain = layers(x)
    (expected,) = torch.autograd.grad(plain.square().sum(), x)
    with frozen_products(layers):
        ours = layers(x)
        (gradient,) = torch.autograd.grad(ours.square().sum(), x)
    assert torch.allclose(ours, plain, atol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-4)
    assert torch.equal(layers(x), plain)


def take_through(products, x, gy):
    """What a frozen convolution makes of an input, and of the gradient that comes back."""
    x = x.clone().requires_grad_()
    y = FrozenConv.apply(x, products)
    (gradient,) = torch.autograd.grad(y, x, gy)
    return y.detach(), gradient


@pytest.mark.parametrize("size", [4, 40])  # few positions, whose weights are laid out once, and many
@pytest.mark.parametrize(
    "settings", [{"padding": 1}, {"padding": 1, "stride": 2}, {"padding": 0}, {"padding": 3}, {"padding": 2, "dilation": 2}]
)
def test_a_frozen_convolution_answers_as_its_own_whatever_it_was_asked_before(settings, size):
    conv = torch.nn.Conv2d(24, 40, 3, **settings).requires_grad_(False)
    products, fresh = ConvProducts(conv), ConvProducts(conv)
    for rows in (2, 1, 2):
        x = torch.randn(rows, 24, size + 1, size, requires_grad=True)
        plain = conv(x)
        gy = torch.randn_like(plain)
        (expected,) = torch.autograd.grad(plain, x, gy)
        y, gradient = take_through(products, x.detach(), gy)
        assert torch.allclose(y, plain, atol=1e-4)
        assert torch.allclose(gradient, expected, atol=1e-4)
    again, back = take_through(fresh, x.detach(), gy)
    assert torch.equal(again, y)
    assert torch.equal(back, gradient)


@pytest.mark.parametrize("shape", [(4, 16), (700, 96), (3, 300, 96)])
def test_products_agree_however_they_are_made(shape):
    x, weight, bias = torch.randn(shape), torch.randn(48, shape[-1]), torch.randn(48)
    assert torch.allclose(multiply(x, weight, bias), torch.nn.functional.linear(x, weight, bias), atol=1e-4)
    back = multiply(torch.randn(*shape[:-1], 48), weight.t())
    assert back.shape == x.shape


def test_frozen_layers_keep_nothing_for_the_backward_pass():
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(2), torch.nn.Linear(36, 8)).requires_grad_(False)
    kept = []
    with frozen_products(layers), torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda _: torch.empty(0)):
        layers(torch.randn(1, 3, 8, 8, requires_grad=True))
    weights = {parameter.untyped_storage().data_ptr() for parameter in layers.parameters()}
    assert {tensor.untyped_storage().data_ptr() for tensor in kept} <= weights


@pytest.mark.parametrize("tokens", [3, 900])
def test_a_frozen_gated_unit_answers_as_its_own_and_keeps_its_input_alone(tokens):
    layers = torch.nn.Sequential(GEGLU(24, 96)).requires_grad_(False)
    x = torch.randn(2, tokens, 24, requires_grad=True)
    plain = layers(x)
    (expected,) = torch.autograd.grad(plain.square().sum(), x)
    kept = []
    with frozen_products(layers):
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
            ours = layers(x)
        (gradient,) = torch.autograd.grad(ours.square().sum(), x)
    assert torch.allclose(ours, plain, atol=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-4)
    assert [tensor.shape for tensor in kept] == [x.shape]


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
