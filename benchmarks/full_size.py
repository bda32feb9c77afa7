"""One training step and one guided step on an SDXL denoiser of full size with random weights, on the CPU, with time and peak memory.

    python benchmarks/full_size.py

It needs no download and about 10 GB of memory. Autoencoder and text encoders are of one layer: they are not what is measured.
Ends with lines `FIGURE <name> <value>`.
"""

# diffusers annotates sizes as one-tuples
# pyright: reportArgumentType=false

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pairlora.adapters import Role
from pairlora.bases.loading import EMBEDDED
from pairlora.bases.sdxl import SDXLBase
from pairlora.config import SampleConfig, TrainConfig
from pairlora.pipeline import style_attached
from pairlora.sampling import ImageRequest, Sampler, StyleTerm
from pairlora.training import TrainingPair, train_pack

SIZE = 256
PROMPT = "a photo of a fox"
TRAIN = TrainConfig(steps=1, content_steps=0, resolution=SIZE)
SAMPLE = SampleConfig(steps=1, onset=1000, size=SIZE)
POOL = 1 << 24
"""Random values that are drawn; larger weights repeat them, since billions would take longer to draw than the steps."""


def make_denoiser() -> UNet2DConditionModel:
    """The denoiser of SDXL base 1.0 by its published config, bfloat16, with cheap random weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    unet = unet.to(torch.bfloat16).to_empty(device="cpu")
    fill_weights(unet)
    return unet


@torch.no_grad()
def fill_weights(model: nn.Module) -> None:
    """Matrices of variance 1 / inputs, norms of scale 1, biases 0: activations keep their size through the depth."""
    pool = torch.randn(POOL, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        flat, inputs = weight.view(-1), weight[0].numel()
        for start in range(0, flat.numel(), POOL):
            piece = flat[start : start + POOL]
            torch.mul(pool[: piece.numel()], inputs**-0.5, out=piece)


def make_text_config(width: int, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """One layer of a text encoder of SDXL's width."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width,
        projection_dim=width,
        num_hidden_layers=1,
        num_attention_heads=width // 64,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


def make_base() -> SDXLBase:
    """An SDXL whose denoiser alone is of full size."""
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32,) * 4,
        latent_channels=4,
        mid_block_add_attention=False,
    )
    pipeline = StableDiffusionXLPipeline(
        vae=vae.to(torch.bfloat16),
        text_encoder=CLIPTextModel(make_text_config(768, tokenizer)).to(torch.bfloat16),
        text_encoder_2=CLIPTextModelWithProjection(make_text_config(1280, tokenizer)).to(torch.bfloat16),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=make_denoiser(),
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1),
        add_watermarker=False,
    )
    return SDXLBase(pipeline, name="full size", digest="random")


@contextmanager
def measured(name: str) -> Iterator[None]:
    """Print how long the block took, and the largest memory of the process so far."""
    started = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"FIGURE {name}_seconds {time.perf_counter() - started:.1f}", flush=True)
    print(f"FIGURE {name}_peak_gib {peak:.2f}", flush=True)


def check_training(matrices: dict[Role, dict[str, tuple[torch.Tensor, torch.Tensor]]]) -> None:
    """Say what was trained, and stop where a value is not finite or nothing moved."""
    for role, layers in matrices.items():
        trained = [b for _, b in layers.values()]
        if not all(b.isfinite().all() for b in trained) or not any(b.any() for b in trained):
            raise SystemExit(f"{role}: the step gave no usable B")
        print(f"FIGURE {role}_layers {len(trained)}\nFIGURE {role}_values_of_b {sum(b.numel() for b in trained)}")


def main() -> None:
    """Build, train one joint step of one pair, draw one guided step."""
    torch.set_num_threads(1)
    with measured("build"):
        base = make_base()
    print(f"FIGURE denoiser_parameters {sum(weight.numel() for weight in base.denoiser.parameters())}")
    content, style = (Image.new("RGB", (SIZE, SIZE), colour) for colour in ("white", "orange"))
    with measured("training_step"):
        (trained,) = train_pack(base, [TrainingPair("fox", content, style, PROMPT, f"{PROMPT} in ink")], TRAIN)
    if trained.error is not None:
        raise SystemExit(f"the training step failed: {trained.error}")
    check_training(trained.matrices)
    request = ImageRequest(PROMPT, 0, (StyleTerm(0, f"{PROMPT} in ink", 3.0),))
    with measured("guided_step"), style_attached(base, trained.matrices[Role.STYLE]) as adapters:
        latents = Sampler(base, adapters, SAMPLE).draw_latents([request])
    print(f"FIGURE guided_step_finite {int(latents.isfinite().all())}")


if __name__ == "__main__":
    main()
