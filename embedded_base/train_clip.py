"""Train the small CLIP of the evaluation on every set and effect; its captions name contents and looks.

Each batch holds the same contents in several looks, so that the model must tell looks apart as well as contents.
A tenth of the contents is kept out.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from embedded_base.captions import EFFECTS
from embedded_base.contents import CONTENTS, name_content
from embedded_base.drawings import ALL_SETS
from embedded_base.pictures import LOOKS, flip, split_contents
from embedded_base.tokenizer import MAX_TOKENS, collect_words, write_tokenizer
from embedded_base.train_autoencoder import to_tensor
from embedded_base.train_text_encoders import WIDTH, contrastive_loss, make_text_config
from embedded_base.training_loop import TrainingLoop

SET_WORDS = {
    "fluent-emoji-flat": "a flat icon of {}",
    "noto": "a rounded icon of {}",
    "twemoji": "a simple icon of {}",
    "fluent-emoji": "a glossy 3d icon of {} with soft gradient shading",
    "fluent-emoji-high-contrast": "a black and white icon of {} in bold ink lines",
}
CONTENTS_PER_BATCH = 24


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
        """Half the contents in all five sets, then known contents in four effects each."""
        pictures, captions = [], []
        for index in rng.choice(self.kept, CONTENTS_PER_BATCH * 2 // 3, replace=False):
            pictures.extend(self.pictures[:, index])
            captions.extend(SET_WORDS[name].format(name_content(self.slugs[index])) for name in ALL_SETS)
        words = list(EFFECTS.values())
        for index in rng.choice(len(CONTENTS), CONTENTS_PER_BATCH // 3, replace=False):
            for effect in rng.choice(len(words), 3, replace=False):
                pictures.append(self.effects[index, effect])
                captions.append(f"a flat icon of {name_content(CONTENTS[index])}, {words[effect]}")
        return flip(np.array(pictures), rng), captions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    arguments = parser.parse_args()
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
        weight_decay=0.05,
    )

    def step_loss(step: int) -> Tensor:
        rng = np.random.default_rng([step, 7])
        pictures, captions = captioned.draw(rng)
        tokens = tokenizer(captions, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        shift = tuple(int(offset) for offset in rng.integers(-3, 4, size=2))
        tint = torch.from_numpy(0.05 * rng.standard_normal((len(pictures), 3, 1, 1))).float()
        pixels = to_tensor(pictures).roll(shift, dims=(-2, -1)) + tint
        seen = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        read = model.text_projection(model.text_model(**tokens).pooler_output)
        return contrastive_loss(seen, read, model.logit_scale.clamp(max=np.log(60.0)))

    loop.run(step_loss)
    loop.use_averages()
    model.save_pretrained(arguments.work / "clip")


if __name__ == "__main__":
    main()
