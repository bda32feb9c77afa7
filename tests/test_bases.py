"""Every base holds the same laws: stock pipelines draw the same, adapters train, and stock pipelines load them (laws a, f)."""

import pytest
import torch
from tiny_base import SAMPLE, SIZE, TRAIN, make_base, make_picture
from tiny_bases import MAKERS, make_flux, make_sd15

from pairlora.adapters import Role, Segment
from pairlora.adapters.files import decode_adapter, encode_adapter
from pairlora.bases.flux import EMBEDDED_GUIDANCE, pack_latents, unpack_latents
from pairlora.errors import BaseModelError
from pairlora.execution.pipeline import style_attached
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm, initial_noise
from pairlora.training.packs import TrainingPair, train_pack

PROMPT, STYLED = "a flat icon of a fox", "a flat icon of a fox in ink"
TRAIN3 = TRAIN.model_copy(update={"steps": 3, "content_steps": 1, "learning_rate": 0.05})
DIFFUSION, FLOW = 1e-9, 1e-5  # flow matching's own Euler step rounds to float32


@pytest.fixture(scope="module", params=MAKERS)
def base(request):
    return MAKERS[request.param]()


@pytest.fixture(scope="module")
def trained(base):
    pair = TrainingPair("pair", make_picture(0), make_picture(1), PROMPT, STYLED)
    return train_pack(base, [pair], TRAIN3)[0]


def draw_stock(base, guidance_scale, steps=4, seed=7):
    """Latents as the stock pipeline draws them, with its own loop, guidance and scheduler."""
    noise = initial_noise(seed, base.latent_shape(SIZE))[None].double()
    settings = {"num_inference_steps": steps, "height": SIZE, "width": SIZE, "output_type": "latent", "return_dict": False}
    if base.denoiser_name == "unet":
        return base.pipeline(PROMPT, latents=noise, guidance_scale=guidance_scale, **settings)[0]
    settings |= {"guidance_scale": EMBEDDED_GUIDANCE, "max_sequence_length": base.token_limit(), "negative_prompt": ""}
    tokens = base.pipeline(PROMPT, latents=pack_latents(noise), true_cfg_scale=guidance_scale, **settings)[0]
    return unpack_latents(tokens, *noise.shape[-2:])


def tolerance(base):
    return DIFFUSION if base.denoiser_name == "unet" else FLOW


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_strength_zero_draws_what_the_stock_pipeline_draws(base, guidance_scale):
    sample = SAMPLE.model_copy(update={"guidance_scale": guidance_scale})
    ours = Sampler(base, None, sample).draw_latents([ImageRequest(PROMPT, 7, (StyleTerm(0, STYLED, 0.0),))])
    stock = draw_stock(base, guidance_scale)
    assert stock.abs().max() > 0.1
    assert torch.allclose(ours, stock, atol=tolerance(base))


def test_decoded_pictures_are_those_of_the_stock_pipeline(base):
    latents = draw_stock(base, 1.0)
    vae = base.pipeline.vae
    with torch.inference_mode():
        pixels = vae.decode(latents / vae.config.scaling_factor + (vae.config.shift_factor or 0)).sample
    (stock,) = base.pipeline.image_processor.postprocess(pixels, output_type="pil")
    (ours,) = base.decode_latents(latents)
    assert ours.size == (SIZE, SIZE)
    assert ours.tobytes() == stock.tobytes()


def test_training_moves_both_adapters(trained):
    assert trained.error is None
    assert [loss.style_loss is None for loss in trained.losses] == [True, False, False]
    for role in Role:
        assert all(b.any() for _, b in trained.matrices[role].values())


def test_a_style_adapter_changes_the_guided_picture(base, trained):
    with style_attached(base, trained.matrices[Role.STYLE]) as adapters:
        requests = [ImageRequest(PROMPT, 0), ImageRequest(PROMPT, 0, (StyleTerm(0, PROMPT, 3.0),))]
        plain, styled = Sampler(base, adapters, SAMPLE.model_copy(update={"onset": 1000})).draw_latents(requests)
        alone = Sampler(base, adapters, SAMPLE.model_copy(update={"onset": 1000})).draw_latents(requests[1:])[0]
    assert styled.isfinite().all()
    assert (plain - styled).abs().max() > 1e-3
    assert torch.allclose(alone, styled, atol=tolerance(base))


@pytest.mark.parametrize("kind", MAKERS)
def test_half_precision_predicts_and_trains_nearly_the_same(kind):
    half, full = MAKERS[kind](torch.bfloat16), MAKERS[kind](torch.float32)
    pair = TrainingPair("pair", make_picture(0), make_picture(1), PROMPT, STYLED)
    ours, expected = (train_pack(base, [pair], TRAIN3)[0] for base in (half, full))
    assert all(b.dtype == torch.float32 for _, b in ours.matrices[Role.STYLE].values())
    assert [loss.content_loss for loss in ours.losses] == pytest.approx([loss.content_loss for loss in expected.losses], rel=0.05)
    drawn, wanted = (Sampler(base, None, SAMPLE).draw_latents([ImageRequest(PROMPT, 7)]) for base in (half, full))
    assert drawn.dtype == torch.float32
    assert (drawn - wanted).norm() < 0.1 * wanted.norm()


@pytest.mark.parametrize("kind", MAKERS)
def test_an_adapter_that_was_trained_and_drawn_with_says_the_same_in_the_stock_pipeline(kind, tmp_path):
    ours, stock = MAKERS[kind](), MAKERS[kind]()
    pair = TrainingPair("pair", make_picture(0), make_picture(1), PROMPT, STYLED)
    style = train_pack(ours, [pair], TRAIN3)[0].matrices[Role.STYLE]
    data = encode_adapter(style, {"rank": "4"}, ours.denoiser_name)
    (tmp_path / "style.safetensors").write_bytes(data)
    latents = torch.randn((1, *ours.latent_shape(SIZE)), generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def predict(base):
        with torch.inference_mode():
            return base.predict(latents, torch.tensor([400]), base.encode_prompts([STYLED]), SIZE)

    plain = predict(ours)
    with style_attached(ours, decode_adapter(data)[0]) as adapters:
        with adapters.routed([Segment(0, 1, Role.STYLE, (0,))]):
            expected = predict(ours)
        requests = [ImageRequest(PROMPT, 0), ImageRequest(PROMPT, 0, (StyleTerm(0, STYLED, 3.0),))]
        unstyled, styled = Sampler(ours, adapters, SAMPLE).draw(requests)
    stock.pipeline.load_lora_weights(tmp_path, weight_name="style.safetensors")
    stock.denoiser.to(torch.float64)
    assert torch.allclose(predict(stock), expected, atol=1e-6)
    assert (expected - plain).abs().max() > 1e-3
    assert styled.tobytes() != unstyled.tobytes()


@pytest.mark.parametrize("kind", MAKERS)
def test_activations_that_are_computed_twice_give_the_same_adapters(kind):
    pair = TrainingPair("pair", make_picture(0), make_picture(1), PROMPT, STYLED)
    kept, recomputed = (train_pack(MAKERS[kind](), [pair], TRAIN3, recompute=recompute)[0] for recompute in (False, True))
    for role in Role:
        assert all(torch.allclose(b, recomputed.matrices[role][name][1], atol=1e-9) for name, (_, b) in kept.matrices[role].items())


@pytest.mark.parametrize("kind", MAKERS)
def test_fused_projections_are_refused_with_the_remedy(kind):
    base = MAKERS[kind]()
    names = base.attention_projections()
    base.denoiser.fuse_qkv_projections()
    with pytest.raises(BaseModelError, match=rf"call pipeline\.{base.denoiser_name}\.unfuse_qkv_projections\(\)"):
        base.attention_projections()
    base.denoiser.unfuse_qkv_projections()
    assert base.attention_projections() == names


def test_a_size_that_the_base_cannot_draw_is_refused(base):
    with pytest.raises(BaseModelError, match="not a multiple of"):
        base.latent_shape(SIZE + 2)


def test_no_base_takes_a_scheduler_that_draws_noise(base):
    with pytest.raises(BaseModelError):
        base.make_scheduler("EulerAncestralDiscreteScheduler", 4)


def test_the_empty_prompt_is_a_prompt_as_any_other_except_for_sdxl():
    for make in (make_sd15, make_flux):
        empty = make().encode_prompts(["", PROMPT])
        assert all(tensor[0].any() for tensor in empty.tensors.values())
    assert not any(tensor[0].any() for tensor in make_base().encode_prompts(["", PROMPT]).tensors.values())


# SD 1.5


def test_sd15_honours_the_prediction_type():
    base = make_sd15(prediction_type="v_prediction")
    clean, noise, t = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([400])
    alpha = base.pipeline.scheduler.alphas_cumprod[400]
    assert torch.allclose(base.training_target(clean, noise, t), alpha.sqrt() * noise - (1 - alpha).sqrt() * clean, atol=1e-6)
    assert torch.equal(make_sd15().training_target(clean, noise, t), noise)
    ours = Sampler(base, None, SAMPLE).draw_latents([ImageRequest(PROMPT, 7)])
    assert torch.allclose(ours, draw_stock(base, 3.0), atol=DIFFUSION)


# FLUX


def test_flux_packs_as_the_stock_pipeline_does():
    base, latents = make_flux(), torch.randn(2, 4, 6, 10)
    stock = base.pipeline._pack_latents(latents, 2, 4, 6, 10)
    assert torch.equal(pack_latents(latents), stock)
    assert torch.equal(unpack_latents(stock, 6, 10), latents)


def test_flux_noise_and_target_are_a_line_and_its_velocity():
    base = make_flux()
    clean, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    at = base.add_noise(clean, noise, torch.tensor([0, 250, 500]))
    assert torch.equal(at[0], clean[0])
    assert torch.allclose(at[1], 0.75 * clean[1] + 0.25 * noise[1])
    slope = (at[2] - clean[2]) / 0.5
    assert torch.allclose(slope, base.training_target(clean, noise, torch.tensor([0, 250, 500]))[2], atol=1e-6)


def test_flux_without_a_guidance_embedding_draws_as_stock():
    base = make_flux(guidance_embeds=False)
    assert torch.allclose(Sampler(base, None, SAMPLE).draw_latents([ImageRequest(PROMPT, 7)]), draw_stock(base, 3.0), atol=FLOW)


def test_flux_shifts_its_timesteps_by_the_size():
    base = make_flux()
    small, large = (base.make_scheduler(None, 8, size).timesteps for size in (32, 1024))
    assert small[0] == large[0] == 1000
    assert (large[1:] > small[1:]).all()
