"""What an exported file says of itself in its header: for kohya's readers (`ss_*`), for ModelSpec's, and for ours.

Nothing here reads a clock: the same adapter of the same run gives the same bytes.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from io import BytesIO

from PIL import Image
from torch import Tensor

from pairlora.adapters.files import prefix_facts
from pairlora.release.contents import Release

MODEL_SPEC = "1.0.1"
ARCHITECTURES = {"sdxl": "stable-diffusion-xl-v1-base/lora", "sd15": "stable-diffusion-v1/lora", "flux": "flux-1-dev/lora"}
BASE_VERSIONS = {"sdxl": "sdxl_base_v1-0", "sd15": "sd_v1", "flux": "flux1"}
"""`ss_base_model_version`; Forge hides an SDXL file where it begins with anything but 'sdxl_'."""
SGM = "https://github.com/Stability-AI/generative-models"
THUMBNAIL_PIXELS = 256


def describe_file(release: Release, *, rank: int, facts: Mapping[str, str], hash_sha256: str, is_kohya: bool) -> dict[str, str]:
    """All header texts of one exported file, by key; what is not known is left out."""
    family = facts.get("family", "")
    texts = _describe_for_kohya(release, family, rank) | {"sshs_model_hash": hash_sha256}
    implementation = SGM if is_kohya and family == "sdxl" else "diffusers"
    spec = _describe_by_model_spec(release, family) | {"implementation": implementation, "hash_sha256": f"0x{hash_sha256}"}
    texts |= {f"modelspec.{key}": value for key, value in spec.items()}
    ours = {"base_digest": release.record.base_digest, "style_template": release.template}
    ours |= {"licence": release.licence, "consent": release.consent}
    ours |= {"recommended_strength": _show(release.strength), "recommended_weight": _show(release.weight)}
    return {key: value for key, value in (texts | prefix_facts(ours | dict(facts))).items() if value}


def _describe_for_kohya(release: Release, family: str, rank: int) -> dict[str, str]:
    train = release.record.train
    tags = {word: 1 for word in (release.trigger, release.identifier) if word}
    return {
        "ss_base_model_version": BASE_VERSIONS.get(family, ""),
        "ss_learning_rate": f"{train['learning_rate']:g}",
        "ss_network_alpha": f"{rank}",
        "ss_network_args": json.dumps({"module_filter": train.get("layers") or "attention projections"}),
        "ss_network_dim": f"{rank}",
        "ss_network_module": "networks.lora",
        "ss_output_name": release.name,
        "ss_resolution": f"({train['resolution']}, {train['resolution']})",
        "ss_seed": f"{train['seed']}",
        "ss_steps": f"{train['steps']}",
        "ss_tag_frequency": json.dumps({release.name: tags}, ensure_ascii=False),
        "ss_v2": "False",
    }


def _describe_by_model_spec(release: Release, family: str) -> dict[str, str]:
    resolution = release.record.train["resolution"]
    return {
        "sai_model_spec": MODEL_SPEC,
        "architecture": ARCHITECTURES.get(family, ""),
        "title": release.name,
        "description": f"A style learned from one pair of pictures. Write prompts as: {release.template}" if release.template else "",
        "date": f"{release.record.trained_at:%Y-%m-%dT%H:%M:%SZ}",
        "license": release.licence,
        "usage_hint": release.use,
        "thumbnail": make_thumbnail(release.preview) if release.preview else "",
        "trigger_phrase": release.trigger,
        "resolution": f"{resolution}x{resolution}",
    }


def _show(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of all tensors' bytes in the order of their names: what follows the header of a file."""
    hasher = hashlib.sha256()
    for _, tensor in sorted(tensors.items()):
        hasher.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return hasher.hexdigest()


def make_thumbnail(picture: bytes) -> str:
    """A picture of the store as a JPEG data URL, 256 pixels at most a side."""
    image = Image.open(BytesIO(picture), formats=["PNG"]).convert("RGB")
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    out = BytesIO()
    image.save(out, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
