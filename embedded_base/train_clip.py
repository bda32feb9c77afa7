"""Train the small CLIP of the evaluation on every set and effect; its captions name contents and looks.

Each batch holds the same contents in several looks, so that the model must tell looks apart as well as contents, and a second
loss makes it see the same content in every set. A tenth of the contents is kept out.
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from embedded_base.captions import EFFECTS
from embedded_base.contents import CONTENTS, name_content
from embedded_base.drawings import ALL_SETS
from embedded_base.pictures import LOOKS, flip, split_contents
from embedded_base.tokenizer import MAX_TOKENS, collect_words, write_tokenizer
from embedded_base.train_autoencoder import to_tensor
from embedded_base.train_text_encoders import WIDTH, contrastive_loss, make_text_config
from embedded_base.training_loop import TrainingLoop, make_parser

SET_WORDS = {
    "fluent-emoji-flat": "a flat icon of {}",
    "noto": "a rounded icon of {}",
    "twemoji": "a simple icon of {}",
    "fluent-emoji": "a glossy 3d icon of {} with soft gradient shading",
    "fluent-emoji-high-contrast": "a black and white icon of {} in bold ink lines",
}
CONTENTS_PER_BATCH = 20
KNOWN_PER_BATCH = 8


def make_clip(tokenizer) -> CLIPModel:
    text = make_text_config(tokenizer).to_dict()
    vision = {
        "hidden_size": 160,
        "intermediate_size": 480,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
        "projection_dim": WIDTH,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


class Captioned:
    """Pictures in every look with a caption: five sets for all kept contents, effects for the known ones."""

    def __init__(self, work: Path):
        canonical, captioned = np.load(work / "canonical.npz"), np.load(work / "captioned.npz")
        self.slugs = list(canonical["slugs"])
        kept, self.held_out = split_contents(self.slugs)
        self.kept = np.array([self.slugs.index(slug) for slug in kept])
        self.pictures = canonical["pictures"]
        known = captioned["pictures"][: len(CONTENTS) * len(LOOKS)].reshape(len(CONTENTS), len(LOOKS), 64, 64, 3)
        self.effects = known[:, len(LOOKS) - len(EFFECTS) :]

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
        """Contents in all five sets, content by content, then known contents in three effects each."""
        pictures, captions = [], []
        for index in rng.choice(self.kept, CONTENTS_PER_BATCH, replace=False):
            pictures.extend(self.pictures[:, index])
            captions.extend(SET_WORDS[name].format(name_content(self.slugs[index])) for name in ALL_SETS)
        words = list(EFFECTS.values())
        for index in rng.choice(len(CONTENTS), KNOWN_PER_BATCH, replace=False):
            for effect in rng.choice(len(words), 3, replace=False):
                pictures.append(self.effects[index, effect])
                captions.append(f"a flat icon of {name_content(CONTENTS[index])}, {words[effect]}")
        return shift(flip(np.array(pictures), rng), rng), captions


def shift(pictures: np.ndarray, rng: np.random.Generator, reach: int = 4) -> np.ndarray:
    """Each of (n, height, width, 3) pictures moved by up to `reach` pixels each way; its border is repeated."""
    height, width = pictures.shape[1:3]
    padded = np.pad(pictures, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    corners = rng.integers(0, 2 * reach + 1, size=(len(pictures), 2))
    return np.stack([picture[y : y + height, x : x + width] for picture, (y, x) in zip(padded, corners, strict=True)])


def cross_style_loss(seen: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE between the sets' embeddings (contents, sets, width), each set's mean taken off.

    What is left after the mean of a style is gone shall say the content in every style, so that a change of style is
    one direction whatever is drawn.
    """
    centred = F.normalize(seen.float(), dim=-1)
    centred = centred - centred.mean(dim=0)
    pairs = list(combinations(range(seen.shape[1]), 2))
    return sum(contrastive_loss(centred[:, first], centred[:, second], scale) for first, second in pairs) / len(pairs)


def main() -> None:
    arguments = make_parser(__doc__, steps=2000).parse_args()
    torch.manual_seed(0)
    captioned = Captioned(arguments.work)
    tokenizer = write_tokenizer(collect_words(captioned.slugs), arguments.work / "clip_tokenizer")
    model = make_clip(tokenizer)
    loop = TrainingLoop(
        {"clip": model},
        model.parameters(),
        arguments.work / "clip.checkpoint",
        steps=arguments.steps,
        learning_rate=8e-4,
        warmup=150,
        weight_decay=0.05,
        bf16=arguments.bf16,
    )

    def step_loss(step: int) -> Tensor:
        rng = np.random.default_rng([step, 7])
        pictures, captions = captioned.draw(rng)
        tokens = tokenizer(captions, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        tint = torch.from_numpy(0.05 * rng.standard_normal((len(pictures), 3, 1, 1))).float()
        seen = model.visual_projection(model.vision_model(pixel_values=to_tensor(pictures) + tint).pooler_output)
        read = model.text_projection(model.text_model(**tokens).pooler_output)
        by_content = seen[: CONTENTS_PER_BATCH * len(ALL_SETS)].unflatten(0, (CONTENTS_PER_BATCH, len(ALL_SETS)))
        texts = contrastive_loss(seen, read, model.logit_scale.clamp(max=np.log(60.0)))
        return texts + cross_style_loss(by_content, torch.tensor(np.log(10.0)))

    loop.run(step_loss)
    loop.use_averages()
    model.save_pretrained(arguments.work / "clip")


if __name__ == "__main__":
    main()
