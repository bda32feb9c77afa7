"""Manifests of any number of pairs, and the run that asks for next to nothing of each."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

SIDE = 16


def describe_run(manifest: str, output: str) -> dict[str, Any]:
    """One step of training, one prompt and seed, unstyled and styled: every kind of object that a pair leaves, once."""
    return {
        "manifest": manifest,
        "output": {"url": output},
        "base": {"name": "idle", "revision": "1"},
        "train": {"content_rank": 1, "style_rank": 1, "steps": 1, "content_steps": 0, "resolution": SIDE},
        "sample": {"steps": 2, "relative_strengths": (0.0, 1.0), "lora_weights": (), "seeds": (0,), "size": SIDE},
        "evaluate": {"clip": "idle", "clip_revision": "1"},
        "execution": {"devices": "cpu:2"},
    }


def write_manifest(folder: Path, count: int) -> Path:
    """`count` pairs with two small pictures of their own each, and one prompt for all."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    with (folder / "pairs.jsonl").open("w") as manifest:
        for number in range(count):
            for look, red in (("content", 0), ("style", 255)):
                path = pictures / f"{number}-{look}.png"
                if not path.exists():
                    Image.new("RGB", (SIDE, SIDE), (red, number // 256, number % 256)).save(path)
            manifest.write(json.dumps(describe_pair(number)) + "\n")
    return folder / "pairs.jsonl"


def describe_pair(number: int) -> dict[str, Any]:
    """A row of the manifest."""
    return {
        "pair_id": f"pair-{number:06d}",
        "content": f"pictures/{number}-content.png",
        "style": f"pictures/{number}-style.png",
        "content_prompt": f"a thing, number {number}",
        "style_template": "{prompt}, in ink",
        "test_prompts": ["a boat"],
    }
