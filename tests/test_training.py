"""Laws of the training: what moves, what stays, and that a pair does not depend on its pack (method laws d, e, i, j)."""

import pytest
import torch
from tiny_base import TRAIN, make_base, make_picture

from pairlora.adapters import Role
from pairlora.errors import ConfigError
from pairlora.identity import ALGORITHM_VERSION
from pairlora.training.packs import PackExamples, PackTraining, TrainingPair, draw_step, fresh_adapters, open_pack, train_pack

GOLDEN_CONTENT = [1.114535, 0.986961, 1.086486, 1.102078, 0.961869, 1.19771]
GOLDEN_STYLE = [1.087499, 1.107219, 0.951897, 1.188717]


def make_pair(seed):
    return TrainingPair(f"pair-{seed}", make_picture(seed), make_picture(seed + 100), "a photo of a fox", "a photo of a fox in ink")


@pytest.fixture(scope="module")
def base():
    return make_base()


@pytest.fixture
def training(base):
    with fresh_adapters(base, TRAIN, 2) as adapters:
        yield PackTraining(PackExamples(base, [make_pair(0), make_pair(1)]), adapters, TRAIN)


def snapshot(adapters, role):
    return [parameter.detach().clone() for parameter in adapters.parameters(role)]


def test_the_content_phase_leaves_the_style_adapter_at_zero(training):
    training.take_step(0)
    assert all(not parameter.any() for parameter in training.adapters.parameters(Role.STYLE))
    assert any(parameter.any() for parameter in training.adapters.parameters(Role.CONTENT))


def test_the_style_loss_gives_the_content_adapter_no_gradient(training):
    for step in range(3):
        training.take_step(step)
    losses = training.examples.losses(training.adapters, [0, 1], [Role.CONTENT, Role.STYLE], 3, 2)
    losses[Role.STYLE].sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in training.adapters.parameters(Role.CONTENT))
    assert any(parameter.grad.any() for parameter in training.adapters.parameters(Role.STYLE))


def test_the_style_pass_sees_the_content_adapter(training):
    roles = [Role.CONTENT, Role.STYLE]
    before = training.examples.losses(training.adapters, [0], roles, 0, 2)[Role.STYLE]
    for parameter in training.adapters.parameters(Role.CONTENT):
        parameter.data += 0.05
    assert not torch.allclose(training.examples.losses(training.adapters, [0], roles, 0, 2)[Role.STYLE], before)


def test_the_published_order_lets_the_style_pass_see_the_content_adapter_after_its_update(base):
    train = TRAIN.model_copy(update={"update": "alternating", "content_steps": 0})
    with open_pack(base, [make_pair(0)], train) as training:
        facts = training.take_step(0)
        for parameter in training.adapters.parameters(Role.STYLE):
            parameter.data.zero_()  # as before the step; the content adapter stays as after it
        again = training.examples.losses(training.adapters, [0], [Role.STYLE], 0, 2)
    joint = train_pack(base, [make_pair(0)], train.model_copy(update={"update": "joint", "steps": 1}))[0].losses[0]
    assert facts["style_loss"] == pytest.approx(again[Role.STYLE].item(), rel=1e-9)
    assert facts["content_loss"] == pytest.approx(joint.content_loss, rel=1e-9)
    assert abs(facts["style_loss"] - (joint.style_loss or 0)) > 1e-6


def test_both_orders_move_the_content_adapter_alike(base):
    steps = TRAIN.model_copy(update={"steps": 4})
    joint, alternating = (
        train_pack(base, [make_pair(0)], steps.model_copy(update={"update": order}))[0] for order in ("joint", "alternating")
    )
    for name, (_, b) in joint.matrices[Role.CONTENT].items():
        assert torch.allclose(b, alternating.matrices[Role.CONTENT][name][1], atol=1e-7), name


def test_noise_and_timestep_are_shared_by_content_and_style(base):
    same = TrainingPair("pair", make_picture(0), make_picture(0), "a fox", "a fox")
    with fresh_adapters(base, TRAIN, 1) as adapters:
        losses = PackExamples(base, [same]).losses(adapters, [0], [Role.CONTENT, Role.STYLE], 0, 3)
    assert torch.allclose(losses[Role.CONTENT], losses[Role.STYLE], atol=1e-12)


def test_the_draws_of_a_step_depend_on_stream_and_step_alone():
    again, other = draw_step("a", 3, 2, (4, 8, 8), 1000), draw_step("b", 3, 2, (4, 8, 8), 1000)
    assert torch.equal(draw_step("a", 3, 2, (4, 8, 8), 1000).noise, again.noise)
    assert not torch.equal(again.noise, other.noise)


def test_a_range_of_timesteps_is_all_that_is_drawn(base):
    drawn = torch.cat([draw_step("a", step, 8, (1,), 800, 200).timesteps for step in range(50)])
    assert drawn.min() >= 200
    assert drawn.max() < 800
    narrow, wide = (train_pack(base, [make_pair(0)], TRAIN.model_copy(update={"timestep_range": one}))[0] for one in ((0, 300), (0, 1000)))
    assert narrow.losses[0].content_loss != wide.losses[0].content_loss
    assert wide.losses == train_pack(base, [make_pair(0)], TRAIN)[0].losses


def test_only_the_layers_that_are_asked_for_get_adapters(base):
    names = [name for name in base.attention_projections() if "attn2" in name]
    trained = train_pack(base, [make_pair(0)], TRAIN.model_copy(update={"layers": r"\.attn2\."}))[0]
    assert sorted(trained.matrices[Role.STYLE]) == sorted(names)
    with pytest.raises(ConfigError, match="finds none"):
        train_pack(base, [make_pair(0)], TRAIN.model_copy(update={"layers": "attn3"}))


def test_a_pair_trained_in_a_pack_equals_the_pair_trained_alone(base):
    packed = train_pack(base, [make_pair(0), make_pair(1), make_pair(2)], TRAIN)[1]
    alone = train_pack(base, [make_pair(1)], TRAIN)[0]
    for role in Role:
        for name, (_, b) in alone.matrices[role].items():
            assert torch.allclose(b, packed.matrices[role][name][1], atol=1e-6), name


def test_activations_that_are_computed_twice_give_the_same_adapters(base):
    kept, recomputed = (train_pack(base, [make_pair(0), make_pair(1)], TRAIN, recompute=recompute) for recompute in (False, True))
    assert not base.denoiser.is_gradient_checkpointing
    for one, other in zip(kept, recomputed, strict=True):
        assert [loss.content_loss for loss in one.losses] == pytest.approx([loss.content_loss for loss in other.losses], rel=1e-9)
        for role in Role:
            assert all(torch.allclose(b, other.matrices[role][name][1], atol=1e-9) for name, (_, b) in one.matrices[role].items())


def test_a_clipped_gradient_is_clipped_by_the_norm_of_its_own_pair(base):
    clipped = TRAIN.model_copy(update={"gradient_clip": 1e-3})
    packed = train_pack(base, [make_pair(0), make_pair(1)], clipped)[1]
    alone = train_pack(base, [make_pair(1)], clipped)[0]
    free = train_pack(base, [make_pair(1)], TRAIN)[0]
    for role in Role:
        assert all(torch.allclose(b, packed.matrices[role][name][1], atol=1e-6) for name, (_, b) in alone.matrices[role].items())
    assert any(not torch.equal(b, free.matrices[Role.STYLE][name][1]) for name, (_, b) in alone.matrices[Role.STYLE].items())


def test_equal_inputs_give_equal_bytes(base):
    first, second = (train_pack(base, [make_pair(0)], TRAIN)[0] for _ in range(2))
    for role in Role:
        assert all(torch.equal(b, second.matrices[role][name][1]) for name, (_, b) in first.matrices[role].items())


def test_the_basis_stays_frozen_and_orthogonal(base):
    trained = train_pack(base, [make_pair(0)], TRAIN)[0]
    for name, (content, _) in trained.matrices[Role.CONTENT].items():
        style, b = trained.matrices[Role.STYLE][name]
        assert (content @ style.T).abs().max() < 1e-7
        assert b.any()


def test_a_pair_that_diverges_leaves_the_pack_and_harms_no_other(base):
    broken = make_pair(1)
    examples = PackExamples(base, [make_pair(0), broken])
    for latents in examples.latents[Role.STYLE]:
        latents[1] = float("nan")
    with fresh_adapters(base, TRAIN, 2) as adapters:
        training = PackTraining(examples, adapters, TRAIN)
        for step in range(TRAIN.steps):
            training.take_step(step)
        good, bad = training.finish()
    assert "style loss is not a finite number at step 3" in str(bad.error)
    alone = train_pack(base, [make_pair(0)], TRAIN)[0]
    for role in Role:
        assert all(torch.allclose(b, good.matrices[role][name][1], atol=1e-6) for name, (_, b) in alone.matrices[role].items())


def test_the_target_follows_the_prediction_type():
    base = make_base(prediction_type="v_prediction")
    clean, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    t = torch.tensor([400])
    alpha = base.pipeline.scheduler.alphas_cumprod[400]
    assert torch.allclose(base.training_target(clean, noise, t), alpha.sqrt() * noise - (1 - alpha).sqrt() * clean, atol=1e-6)
    assert torch.equal(make_base().training_target(clean, noise, t), noise)


def test_losses_fall_on_the_same_draws(training):
    def measure():
        losses = training.examples.losses(training.adapters, [0, 1], [Role.CONTENT, Role.STYLE], 999, 32)
        return torch.stack([losses[role].detach() for role in Role])

    before = measure()
    for step in range(30):
        training.take_step(step)
    assert (measure() < before).all()


def test_steps_are_logged_by_phase(base):
    losses = train_pack(base, [make_pair(0)], TRAIN)[0].losses
    assert [loss.step for loss in losses] == [1, 2, 3, 4, 5, 6]
    assert [loss.style_loss is None for loss in losses] == [True, True, False, False, False, False]


def test_golden_losses(base):
    """Where these move, the algorithm has changed: raise ALGORITHM_VERSION in the same commit."""
    losses = train_pack(base, [make_pair(0)], TRAIN)[0].losses
    assert ALGORITHM_VERSION == 1
    assert [loss.content_loss for loss in losses] == pytest.approx(GOLDEN_CONTENT, rel=1e-4)
    assert [loss.style_loss for loss in losses[2:]] == pytest.approx(GOLDEN_STYLE, rel=1e-4)
