"""A random SDXL of a few thousand weights: the real classes, for tests that hold the maths to its laws."""

# diffusers annotates sizes as one-tuples
# pyright: reportArgumentType=false

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pairlora.bases.sdxl import SDXLBase
from pairlora.config import SampleConfig, TrainConfig

SIZE = 32
TOKENIZER = Path(__file__).with_name("tokenizer")
"""A small CLIP tokenizer of its own, so that golden values do not depend on the base that ships."""
TRAIN = TrainConfig(content_rank=4, style_rank=4, steps=6, content_steps=2, learning_rate=1e-2, draws=2, resolution=SIZE)
SAMPLE = SampleConfig(steps=4, guidance_scale=3.0, relative_strengths=(0.0, 1.0), size=SIZE, seeds=(0, 1), batch_rows=64)


def describe_clip(tokenizer: CLIPTokenizer, width: int = 12) -> CLIPTextConfig:
    """A text encoder of two layers."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=24,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def make_autoencoder() -> AutoencoderKL:
    """4x, four channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 4, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        mid_block_add_attention=False,
    )


def make_pipeline(
    dtype: torch.dtype = torch.float64, prediction_type: str = "epsilon", text_widths: tuple[int, int] = (12, 12)
) -> StableDiffusionXLPipeline:
    """A stock pipeline with random weights; its attention widths are 16, 32 and 24 (the text)."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    unet = UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=text_widths[1] + 6 * 8,
        cross_attention_dim=sum(text_widths),
        norm_num_groups=4,
    )
    vae = make_autoencoder()
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(describe_clip(tokenizer, text_widths[0])),
        text_encoder_2=CLIPTextModelWithProjection(describe_clip(tokenizer, text_widths[1])),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=scheduler,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(dtype)


def make_base(dtype: torch.dtype = torch.float64, prediction_type: str = "epsilon") -> SDXLBase:
    return SDXLBase(make_pipeline(dtype, prediction_type), name="tiny", digest="tiny")


def make_picture(seed: int, size: int = SIZE) -> Image.Image:
    """Coloured noise, smoothed: a picture that no two seeds share."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand((size // 4, size // 4, 3), generator=generator).mul(255).byte().numpy()
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
