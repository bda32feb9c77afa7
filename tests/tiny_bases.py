"""A random SD 1.5 and a random FLUX of a few thousand weights, beside the SDXL of `tiny_base`: the real classes."""

# diffusers annotates sizes as one-tuples
# pyright: reportArgumentType=false

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tiny_base import SIZE, TOKENIZER, describe_clip, make_base
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from pairlora.bases.flux import FluxBase
from pairlora.bases.sd15 import SD15Base

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def make_autoencoder(**settings) -> AutoencoderKL:
    """An autoencoder that halves a picture twice."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 4, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        mid_block_add_attention=False,
        **settings,
    )


def make_sd15_pipeline(dtype: torch.dtype = torch.float64, prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """A stock pipeline with random weights and the scheduler that SD 1.5 comes with; attention widths 16, 32 and 12 (the text)."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    pipeline = StableDiffusionPipeline(
        vae=make_autoencoder(),
        text_encoder=CLIPTextModel(describe_clip(tokenizer)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=SIZE // 4,
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
            block_out_channels=(16, 32),
            layers_per_block=1,
            attention_head_dim=4,
            cross_attention_dim=12,
            norm_num_groups=4,
        ),
        scheduler=PNDMScheduler(**SCHEDULE, skip_prk_steps=True, set_alpha_to_one=False, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(dtype)


def make_t5_tokenizer() -> PreTrainedTokenizerFast:
    """Letters as tokens, and the end of the text; it pads as T5's own does."""
    letters = ["<pad>", "</s>", "<unk>", *"▁abcdefghijklmnopqrstuvwxyz,"]
    tokenizer = Tokenizer(models.Unigram([(letter, -1.0) for letter in letters], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=24)


def make_flux_pipeline(dtype: torch.dtype = torch.float64, guidance_embeds: bool = True) -> FluxPipeline:
    """A stock pipeline with random weights: two double and two single blocks of width 16, shifted timesteps as FLUX.1-dev."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    t5_tokenizer = make_t5_tokenizer()
    pipeline = FluxPipeline(
        vae=make_autoencoder(shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModel(describe_clip(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=len(t5_tokenizer), d_model=20, d_kv=5, d_ff=24, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu")
        ),
        tokenizer_2=t5_tokenizer,
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=20,
            pooled_projection_dim=12,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(2, 2, 4),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(dtype)


def make_sd15(dtype: torch.dtype = torch.float64, prediction_type: str = "epsilon") -> SD15Base:
    return SD15Base(make_sd15_pipeline(dtype, prediction_type), name="tiny", digest="tiny")


def make_flux(dtype: torch.dtype = torch.float64, guidance_embeds: bool = True) -> FluxBase:
    return FluxBase(make_flux_pipeline(dtype, guidance_embeds), name="tiny", digest="tiny")


MAKERS = {"sdxl": make_base, "sd15": make_sd15, "flux": make_flux}
