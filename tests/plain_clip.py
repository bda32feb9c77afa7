"""CLIP in NumPy, written from its architecture (Radford et al. 2021, arXiv 2103.00020), to hold the encoder of the evaluation to.

It shares no code with it: weights, merges and configuration are read as files, everything is float64.
"""

import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

Array = np.ndarray


class PlainClip:
    """Embeddings of pictures and prompts as unit vectors, one at a time."""

    def __init__(self, folder: Path):
        self.weights = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}
        self.config = json.loads((folder / "config.json").read_text())
        self.preprocessing = json.loads((folder / "preprocessor_config.json").read_text())
        words = json.loads((folder / "tokenizer.json").read_text())["model"]
        self.vocabulary: dict[str, int] = words["vocab"]
        self.ranks = {tuple(pair): rank for rank, pair in enumerate(words["merges"])}

    def embed_picture(self, picture: Image.Image) -> Array:
        """(width,): patches with a class token in front, whose last state is projected."""
        sizes = self.config["vision_config"]
        side, count = sizes["patch_size"], sizes["image_size"] // sizes["patch_size"]
        pixels = self.prepare(picture)
        patches = pixels.reshape(count, side, count, side, 3).transpose(0, 2, 4, 1, 3).reshape(count * count, -1)
        kernel = self.weights["vision_model.embeddings.patch_embedding.weight"]
        states = np.vstack([self.weights["vision_model.embeddings.class_embedding"], patches @ kernel.reshape(len(kernel), -1).T])
        states = self.normalize(
            states + self.weights["vision_model.embeddings.position_embedding.weight"], "vision_model.pre_layrnorm", sizes
        )
        states = self.transform(states, "vision_model", sizes)
        return self.project(self.normalize(states[0], "vision_model.post_layernorm", sizes), "visual_projection")

    def prepare(self, picture: Image.Image) -> Array:
        """(side, side, 3): the shorter side scaled (bicubic), the middle cut out, standardised."""
        size = self.config["vision_config"]["image_size"]
        scale = size / min(picture.size)
        sized = picture.convert("RGB").resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
        left, top = (sized.width - size) // 2, (sized.height - size) // 2
        pixels = np.asarray(sized.crop((left, top, left + size, top + size)), dtype=np.float64) / 255
        return (pixels - self.preprocessing["image_mean"]) / self.preprocessing["image_std"]

    def embed_prompt(self, prompt: str) -> Array:
        """(width,): each word sees those before it; the state of the end mark is projected."""
        sizes = self.config["text_config"]
        tokens = self.tokenize(prompt)
        states = self.weights["text_model.embeddings.token_embedding.weight"][tokens]
        states = states + self.weights["text_model.embeddings.position_embedding.weight"][: len(tokens)]
        states = self.transform(states, "text_model", sizes, mask=np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1))
        return self.project(self.normalize(states[-1], "text_model.final_layer_norm", sizes), "text_projection")

    def tokenize(self, prompt: str) -> list[int]:
        """Byte pairs of the words between a mark for the beginning and one for the end, which stays where a prompt is cut. ASCII alone."""
        words = re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", prompt.lower())
        pieces = [self.vocabulary[piece] for word in words for piece in self.merge(word)]
        sizes = self.config["text_config"]
        return [sizes["bos_token_id"], *pieces[: sizes["max_position_embeddings"] - 2], sizes["eos_token_id"]]

    def merge(self, word: str) -> list[str]:
        """A word as byte pairs: the pair that was merged first in the making of the vocabulary is merged first."""
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while pairs := [pair for pair in pairwise(parts) if pair in self.ranks]:
            first = min(pairs, key=self.ranks.__getitem__)
            at = next(index for index in range(len(parts) - 1) if (parts[index], parts[index + 1]) == first)
            parts[at : at + 2] = ["".join(first)]
        return parts

    def transform(self, states: Array, tower: str, sizes: dict, mask: Array | float = 0.0) -> Array:
        """(tokens, width) through the blocks of a tower: attention, then two layers, each after a norm and beside a skip."""
        for index in range(sizes["num_hidden_layers"]):
            block = f"{tower}.encoder.layers.{index}"
            states = states + self.attend(self.normalize(states, f"{block}.layer_norm1", sizes), f"{block}.self_attn", sizes, mask)
            hidden = self.apply(self.normalize(states, f"{block}.layer_norm2", sizes), f"{block}.mlp.fc1")
            states = states + self.apply(hidden / (1 + np.exp(-1.702 * hidden)), f"{block}.mlp.fc2")
        return states

    def attend(self, states: Array, layer: str, sizes: dict, mask: Array | float) -> Array:
        """softmax(q kᵀ / √d) v for each head."""
        heads = sizes["num_attention_heads"]

        def split(name: str) -> Array:
            return self.apply(states, f"{layer}.{name}").reshape(len(states), heads, -1).transpose(1, 0, 2)

        queries, keys, values = split("q_proj"), split("k_proj"), split("v_proj")
        scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(queries.shape[-1]) + mask
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ values
        return self.apply(mixed.transpose(1, 0, 2).reshape(len(states), -1), f"{layer}.out_proj")

    def apply(self, states: Array, layer: str) -> Array:
        return states @ self.weights[f"{layer}.weight"].T + self.weights[f"{layer}.bias"]

    def normalize(self, states: Array, layer: str, sizes: dict) -> Array:
        centred = states - states.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + sizes["layer_norm_eps"])
        return scaled * self.weights[f"{layer}.weight"] + self.weights[f"{layer}.bias"]

    def project(self, state: Array, layer: str) -> Array:
        embedded = self.weights[f"{layer}.weight"] @ state
        return embedded / np.linalg.norm(embedded)
