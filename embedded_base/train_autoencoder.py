"""Train the autoencoder (AutoencoderKL, 8x) on every set but the held-out contents.

Three stages: `all` trains encoder and decoder; `decoder` freezes the encoder, so that latents made with it stay
valid, and goes on with the decoder alone; `lines` shows the decoder more of the sets with fine lines, which it draws worst.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from embedded_base.pictures import flip, split_contents
from embedded_base.training_loop import TrainingLoop, make_parser

BATCH = 16
KL_WEIGHT = 1e-4
LATENT_CHANNELS = 32
EMPHASIS = {"noto": 2.0, "fluent-emoji-high-contrast": 6.0}


@dataclass(frozen=True)
class Stage:
    """What one stage trains from, at which rate, on how much of what."""

    start: str | None
    learning_rate: float
    squared_weight: float
    emphasised: bool


STAGES = {
    "all": Stage(None, 1.5e-3, squared_weight=3, emphasised=False),
    "decoder": Stage("all", 7e-4, squared_weight=3, emphasised=False),
    "lines": Stage("decoder", 7e-4, squared_weight=10, emphasised=True),
}


def make_autoencoder(latent_channels: int = LATENT_CHANNELS) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 96, 128),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def load_pool(work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures to learn from, uint8 (n, 64, 64, 3), and how often each shall come, float (n,), relative to the others.

    All sets without the held-out contents, and the captioned pictures.
    """
    canonical, captioned = np.load(work / "canonical.npz"), np.load(work / "captioned.npz")
    _, held_out = split_contents(list(canonical["slugs"]))
    kept = ~np.isin(canonical["slugs"], held_out)
    weights = np.repeat([EMPHASIS.get(name, 1.0) for name in canonical["sets"]], kept.sum())
    pictures = np.concatenate([canonical["pictures"][:, kept].reshape(-1, 64, 64, 3), captioned["pictures"]])
    return pictures, np.concatenate([weights, np.ones(len(captioned["pictures"]))])


def to_tensor(pictures: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) to float (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstruction_loss(drawn: Tensor, picture: Tensor, squared: float = 3.0) -> Tensor:
    """L1 + `squared` × mean squared error + half the L1 of the finite differences, which keeps outlines sharp."""
    edges = sum(F.l1_loss(drawn.diff(dim=axis), picture.diff(dim=axis)) for axis in (-1, -2))
    return F.l1_loss(drawn, picture) + squared * F.mse_loss(drawn, picture) + 0.5 * edges


def measure_psnr(model: AutoencoderKL, pictures: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of reconstructions at the mean latent."""
    with torch.inference_mode():
        drawn = torch.cat([model.decode(model.encode(batch).latent_dist.mode()).sample.clamp(-1, 1) for batch in pictures.split(16)])
    return (10 * torch.log10(4 / (drawn - pictures).square().mean(dim=(1, 2, 3)))).mean().item()


def make_model(stage: Stage, work: Path, latent_channels: int) -> AutoencoderKL:
    """The autoencoder as the stage begins; its encoder is frozen in every stage but the first."""
    torch.manual_seed(0)
    model = make_autoencoder(latent_channels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if stage.start is not None:
        model.load_state_dict(torch.load(work / f"autoencoder.{stage.start}.pt", weights_only=True))
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    return model


def main() -> None:
    parser = make_parser(__doc__, steps=6000)
    parser.add_argument("--stage", choices=STAGES, default="all")
    parser.add_argument("--latent-channels", type=int, default=LATENT_CHANNELS)
    arguments = parser.parse_args()
    stage = STAGES[arguments.stage]
    model = make_model(stage, arguments.work, arguments.latent_channels)
    pool, weights = load_pool(arguments.work)
    ends = np.cumsum(weights if stage.emphasised else np.ones_like(weights))
    loop = TrainingLoop(
        {"autoencoder": model},
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        arguments.work / f"autoencoder.{arguments.stage}.checkpoint",
        steps=arguments.steps,
        learning_rate=stage.learning_rate,
        weight_decay=0.0,
        bf16=arguments.bf16,
    )

    def step_loss(step: int) -> Tensor:
        rng = np.random.default_rng([step, list(STAGES).index(arguments.stage)])
        chosen = np.searchsorted(ends, rng.random(BATCH) * ends[-1], side="right")
        picture = to_tensor(flip(pool[chosen], rng))
        posterior = model.encode(picture).latent_dist
        generator = torch.Generator().manual_seed(step)
        drawn = model.decode(posterior.sample(generator)).sample.float()
        return reconstruction_loss(drawn, picture, stage.squared_weight) + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    loop.run(step_loss)
    loop.use_averages()
    torch.save(model.state_dict(), arguments.work / f"autoencoder.{arguments.stage}.pt")
    canonical = np.load(arguments.work / "canonical.npz")
    _, held_out = split_contents(list(canonical["slugs"]))
    chosen = np.isin(canonical["slugs"], held_out)
    for name, pictures in zip(canonical["sets"], canonical["pictures"], strict=True):
        print(f"PSNR held-out {name} {measure_psnr(model, to_tensor(pictures[chosen])):.2f} dB")


if __name__ == "__main__":
    main()
