"""What makes two trainings, two pictures or two scores the same: sha256 over canonical JSON of all that decides them."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pairlora.config import SampleConfig, TrainConfig
from pairlora.records import Pair, PlannedImage

ALGORITHM_VERSION = 1
"""Raised by every change of the code that changes trained weights, drawn pictures or scores; golden values stand in the tests."""

LATER_FIELDS = {"timestep_range": None, "layers": None}
"""Fields of the training configuration that came later: at these values they leave identities as they were without them."""


def digest_record(record: Mapping[str, Any]) -> str:
    """sha256 of canonical JSON: sorted keys, no spaces, no NaN."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_training(pair: Pair, train: TrainConfig, *, content_sha256: str, style_sha256: str, base_digest: str, dtype: str) -> str:
    """The identity of a training: everything that changes the weights; no pair_id, path, time, test prompt or device."""
    return digest_record(
        {
            "algorithm": ALGORITHM_VERSION,
            "base": base_digest,
            "dtype": dtype,
            "content": content_sha256,
            "style": style_sha256,
            "content_prompt": pair.training_prompt,
            "style_prompt": pair.style_prompt(pair.training_prompt),
            "train": {name: value for name, value in train.model_dump(mode="json").items() if value != LATER_FIELDS.get(name, ...)},
        }
    )


def describe_profile(sample: SampleConfig) -> str:
    """Scheduler, steps, onset and size of the drawing, as one line; approximations are named where they are used."""
    profile = f"{sample.scheduler or 'own'}/{sample.steps} steps/onset {sample.onset}/{sample.size} px"
    if sample.guidance_interval is None:
        return profile
    high, low = sample.guidance_interval
    return f"{profile}/unconditional row in {high}-{low} only"


def identify_image(planned: PlannedImage, sample: SampleConfig, *, fingerprint: str, base_digest: str, dtype: str) -> str:
    """The identity of a drawn picture. An unstyled one depends on no adapter and on no style prompt."""
    styled = not planned.is_unstyled
    plain = {} if planned.lora_weight is None else {"lora_weight": planned.lora_weight}
    return digest_record(
        plain
        | {
            "algorithm": ALGORITHM_VERSION,
            "base": base_digest,
            "dtype": dtype,
            "adapter": fingerprint if styled else None,
            "prompt": planned.prompt,
            "style_prompt": planned.style_prompt if styled else None,
            "seed": planned.seed,
            "strength": planned.strength,
            "guidance_scale": sample.guidance_scale,
            "profile": describe_profile(sample),
        }
    )


def identify_prefix(prompt: str, seed: int, sample: SampleConfig, *, base_digest: str, dtype: str) -> str:
    """The identity of the latents at the onset, which all styles of one prompt and seed start from."""
    return digest_record(
        {
            "algorithm": ALGORITHM_VERSION,
            "latents": "onset",
            "base": base_digest,
            "dtype": dtype,
            "prompt": prompt,
            "seed": seed,
            "guidance_scale": sample.guidance_scale,
            "profile": describe_profile(sample),
        }
    )


def identify_score(image_id: str, pair: Pair | None, *, compared: Mapping[str, str | None], encoders: Mapping[str, str]) -> str:
    """The identity of the scores of one picture, of a pair or of none: the picture, what it is compared with, and the encoders."""
    return digest_record(
        {
            "algorithm": ALGORITHM_VERSION,
            "image": image_id,
            "content_prompt": pair.plain_prompt if pair else None,
            "compared": dict(compared),
            "encoders": dict(encoders),
        }
    )
