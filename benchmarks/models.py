"""What benchmarks measure on: a random SDXL of a fifth of the widths, and a clock that lets actions take turns."""

# diffusers annotates sizes as one-tuples
# pyright: reportArgumentType=false

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pairlora.bases.loading import EMBEDDED
from pairlora.bases.sdxl import SDXLBase

MID_SIZE = 256
"""Side of the mid-size base's pictures in pixels: 32 x 32 latents of four channels."""


def make_mid_size_base(device: str = "cpu", dtype: torch.dtype = torch.float32) -> SDXLBase:
    """A frozen base with random weights in SDXL's shape: its blocks, head width 64, cross-attention of 256, 50 M parameters.

    Random weights cost what trained ones cost; what it draws is noise.
    """
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    text = describe_text_encoder(tokenizer)
    pipeline = StableDiffusionXLPipeline(
        vae=make_autoencoder(),
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=make_denoiser(),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return SDXLBase(pipeline.to(dtype), name="mid-size", digest="mid-size", device=device)


def make_denoiser() -> UNet2DConditionModel:
    """SDXL's UNet at a fifth of its widths and less than half of the depth of its innermost transformers."""
    return UNet2DConditionModel(
        sample_size=MID_SIZE // 8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128, 256),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 4),
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=64,
        projection_class_embeddings_input_dim=128 + 6 * 64,
        cross_attention_dim=256,
    )


def make_autoencoder() -> AutoencoderKL:
    """SDXL's autoencoder at about a fifth of its widths."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(24, 48, 96, 96),
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=8,
    )


def describe_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """A CLIP text encoder of two layers and width 128; two of them make the 256 that the cross-attention reads."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        projection_dim=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def time_in_turn(actions: Mapping[str, Callable[[], object]], rounds: int = 5, warm_ups: int = 0) -> dict[str, float]:
    """Median seconds of each action after one round that does not count; they take turns, so that a slow moment hits them alike.

    With `warm_ups` each turn does its action so often before the time that counts, as what is done hundreds of times in a row finds its own
    weights in the caches. On a CPU they are seconds of this process on its one thread, which other processes of the machine hardly touch.
    """
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds + 1):
        for name, action in actions.items():
            taken[name].append([_time(action) for _ in range(warm_ups + 1)][-1])
    return {name: statistics.median(values[1:]) for name, values in taken.items()}


def _time(action: Callable[[], object]) -> float:
    """Seconds that an action takes, of what is left to do on the accelerator too."""
    cuda = torch.cuda.is_available()
    clock = time.perf_counter if cuda or torch.get_num_threads() > 1 else time.process_time
    started = clock()
    action()
    if cuda:
        torch.cuda.synchronize()
    return clock() - started
