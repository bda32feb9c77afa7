"""Train the denoiser (UNet2DConditionModel with text_time conditioning) on latents encoded once.

v_prediction on a schedule with zero terminal SNR, so that white and black grounds are in reach. Flat, Noto and
Twemoji and the effects on flat only: the gradient and high-contrast sets stay unseen.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from embedded_base.captions import EFFECTS
from embedded_base.pictures import LOOKS
from embedded_base.tokenizer import MAX_TOKENS
from embedded_base.train_autoencoder import LATENT_CHANNELS, make_autoencoder, to_tensor
from embedded_base.train_text_encoders import WIDTH
from embedded_base.training_loop import TrainingLoop, make_parser

CANONICAL_SHARE = 0.7
SET_SHARES = (0.4, 0.08, 0.08)
DROPPED_CAPTIONS = 0.1
TIME_IDS = (64, 64, 0, 0, 64, 64)


def make_denoiser() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        block_out_channels=(96, 192),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=(3, 6),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=WIDTH + 6 * 32,
        cross_attention_dim=2 * WIDTH,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


@torch.inference_mode()
def encode_captions(captions: list[str], work: Path) -> tuple[Tensor, Tensor]:
    """Hidden states (n, tokens, 2 * WIDTH) and pooled embeddings (n, WIDTH), as the SDXL pipeline makes them."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    first = CLIPTextModel.from_pretrained(work / "text_encoder").eval()
    second = CLIPTextModelWithProjection.from_pretrained(work / "text_encoder_2").eval()
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt").input_ids
    states, pooled = [], []
    for part in tokens.split(256):
        one, two = first(part, output_hidden_states=True), second(part, output_hidden_states=True)
        states.append(torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1))
        pooled.append(two.text_embeds)
    return torch.cat(states), torch.cat(pooled)


@torch.inference_mode()
def encode_pictures(pictures: np.ndarray, work: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents, each (n, LATENT_CHANNELS, 8, 8), unscaled."""
    model = make_autoencoder()
    model.load_state_dict(torch.load(work / "autoencoder.all.pt", weights_only=True))
    parts = [model.encode(to_tensor(part)).latent_dist for part in np.array_split(pictures, len(pictures) // 64)]
    return torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts])


class Examples:
    """Latents and encoded captions with the shares at which they are drawn."""

    def __init__(self, work: Path):
        cache = work / "latents.pt"
        captioned = np.load(work / "captioned.npz")
        if not cache.exists():
            states, pooled = encode_captions(list(captioned["captions"]), work)
            mean, std = encode_pictures(captioned["pictures"], work)
            scaling = 1 / mean[torch.from_numpy(captioned["canonical"])].std().item()
            torch.save({"states": states, "pooled": pooled, "mean": mean, "std": std, "scaling": scaling}, cache)
        stored = torch.load(cache, weights_only=True)
        self.states, self.pooled, self.scaling = stored["states"], stored["pooled"], stored["scaling"]
        self.mean, self.std = stored["mean"] * self.scaling, stored["std"] * self.scaling
        self.weights = self._weigh(captioned["canonical"])

    def _weigh(self, canonical: np.ndarray) -> Tensor:
        effect_share = (1 - sum(SET_SHARES)) / len(EFFECTS)
        per_look = torch.tensor([*SET_SHARES, *[effect_share] * len(EFFECTS)], dtype=torch.float64)
        first = int(canonical.sum())
        plain = per_look.repeat(first // len(LOOKS))
        augmented = torch.ones(len(canonical) - first, dtype=torch.float64)
        return torch.cat([plain / plain.sum() * CANONICAL_SHARE, augmented / augmented.sum() * (1 - CANONICAL_SHARE)])

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, hidden states and pooled embeddings; a share of the captions is dropped to zeros."""
        rows = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        latents = self.mean[rows] + self.std[rows] * torch.randn(self.mean[rows].shape, generator=generator)
        kept = torch.rand(count, generator=generator) >= DROPPED_CAPTIONS
        return latents, self.states[rows] * kept[:, None, None], self.pooled[rows] * kept[:, None]


def main() -> None:
    parser = make_parser(__doc__, steps=5000)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    examples, scheduler, model = Examples(arguments.work), make_scheduler(), make_denoiser().to(memory_format=torch.channels_last)
    time_ids = torch.tensor([TIME_IDS] * arguments.batch, dtype=torch.float32)
    loop = TrainingLoop(
        {"denoiser": model},
        model.parameters(),
        arguments.work / "denoiser.checkpoint",
        steps=arguments.steps,
        learning_rate=1e-3,
        warmup=100,
        average=0.998,
        bf16=arguments.bf16,
    )

    def step_loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        latents, states, pooled = examples.draw(arguments.batch, generator)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (arguments.batch,), generator=generator)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        conditions = {"text_embeds": pooled, "time_ids": time_ids}
        predicted = model(noisy, timesteps, states, added_cond_kwargs=conditions).sample.float()
        return F.mse_loss(predicted, scheduler.get_velocity(latents, noise, timesteps))

    loop.run(step_loss)
    loop.use_averages()
    torch.save({"weights": model.state_dict(), "scaling": examples.scaling, "losses": loop.losses}, arguments.work / "denoiser.pt")


if __name__ == "__main__":
    main()
