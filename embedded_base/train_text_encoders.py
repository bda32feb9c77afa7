"""Train the generator's two text encoders: contrastive on names, layouts and base looks; then they stay frozen.

They never read a word of the held-out styles. The picture side is a small convolutional net that is thrown away.
"""

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from embedded_base.contents import CONTENTS
from embedded_base.tokenizer import MAX_TOKENS, collect_words, write_tokenizer
from embedded_base.train_autoencoder import to_tensor
from embedded_base.training_loop import TrainingLoop, make_parser

BATCH = 128
WIDTH = 128


def make_text_config(tokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )


class LogitScale(nn.Module):
    """The learnt inverse temperature of a contrastive loss, as a logarithm, at most 50."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self) -> Tensor:
        return self.value.clamp(max=math.log(50.0))


class PictureEncoder(nn.Sequential):
    """Pictures (n, 3, 32, 32) to (n, 2 * WIDTH)."""

    def __init__(self) -> None:
        widths = (3, 32, 64, 128, 192)
        blocks = [
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU())
            for before, after in pairwise(widths)
        ]
        super().__init__(*blocks, nn.Flatten(), nn.Linear(192 * 4, 2 * WIDTH))


def contrastive_loss(pictures: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of two (n, width) embeddings."""
    logits = scale.exp() * F.normalize(pictures.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def main() -> None:
    arguments = make_parser(__doc__, steps=1500).parse_args()
    torch.manual_seed(0)
    captioned = np.load(arguments.work / "captioned.npz")
    tokenizer = write_tokenizer(collect_words(list(CONTENTS)), arguments.work / "tokenizer")
    tokens = torch.tensor(tokenizer(list(captioned["captions"]), padding="max_length", truncation=True, max_length=MAX_TOKENS).input_ids)
    pictures = to_tensor(captioned["pictures"])
    pictures = torch.cat([F.interpolate(part, size=32, mode="area") for part in pictures.split(512)])
    canonical = torch.from_numpy(captioned["canonical"]).nonzero().flatten()

    first, second = CLIPTextModel(make_text_config(tokenizer)), CLIPTextModelWithProjection(make_text_config(tokenizer))
    head, eye = nn.Linear(WIDTH, WIDTH, bias=False), PictureEncoder()
    scale = LogitScale()
    trained = [*first.parameters(), *second.parameters(), *head.parameters(), *eye.parameters(), *scale.parameters()]
    loop = TrainingLoop(
        {"first": first, "second": second, "head": head, "eye": eye, "scale": scale},
        trained,
        arguments.work / "text_encoders.checkpoint",
        steps=arguments.steps,
        learning_rate=1e-3,
        bf16=arguments.bf16,
    )

    def step_loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        plain = canonical[torch.randperm(len(canonical), generator=generator)[: BATCH // 2]]
        rows = torch.cat([plain, torch.randint(len(tokens), (BATCH // 2,), generator=generator)])
        length = int((tokens[rows] != tokenizer.eos_token_id).sum(1).max()) + 1
        seen = eye(pictures[rows]).chunk(2, dim=-1)
        read = head(first(tokens[rows, :length]).pooler_output), second(tokens[rows, :length]).text_embeds
        return sum(contrastive_loss(picture, text, scale()) for picture, text in zip(seen, read, strict=True))

    loop.run(step_loss)
    loop.use_averages()
    first.save_pretrained(arguments.work / "text_encoder")
    second.save_pretrained(arguments.work / "text_encoder_2")


if __name__ == "__main__":
    main()
