"""What an adapter file is: which base it is for, its ranks and layers, and what it says of its use. For files of any trainer."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pairlora.adapters.foreign import LoraFile, measure_residual, read_lora
from pairlora.records import Record

TEXT_WIDTHS = {2048: "sdxl", 768: "sd15", 1024: "sd2"}
"""What the text of a base is wide, which the keys and values of its cross attention read."""
VERSIONS = {"sdxl": "sdxl", "flux": "flux", "sd_v1": "sd15", "sd_1": "sd15", "sd_v2": "sd2"}
ARCHITECTURES = {"stable-diffusion-xl": "sdxl", "flux": "flux", "stable-diffusion-v1": "sd15", "stable-diffusion-v2": "sd2"}
SHOWN_TAGS = 10


class Inspection(Record):
    """What `pairlora inspect` says of a file. What neither its header nor its tensors tell is null, or empty."""

    path: str
    origin: str
    family: str | None
    base: str | None
    role: str | None
    layers: int
    text_encoder_layers: int
    other_keys: int
    ranks: dict[int, int]
    scales: tuple[float, ...]
    dtypes: tuple[str, ...]
    orthogonality: float
    trigger_words: tuple[str, ...]
    template: str | None
    recommended_strength: float | None
    recommended_weight: float | None
    licence: str | None
    fingerprint: str | None
    sha256: str
    tensors_sha256: str
    header_hash_matches: bool | None

    def describe(self) -> dict[str, str]:
        """The inspection in words."""
        said = {None: "the header states no hash", True: "as the header states", False: "NOT what the header states"}
        strength = "unknown" if self.recommended_strength is None else f"{self.recommended_strength:g} (style guidance)"
        facts = {
            "origin": self.origin,
            "base": " ".join(filter(None, (self.family or "unknown", self.base and f"({self.base})"))),
            "role": self.role or "",
            "layers": f"{self.layers} of the denoiser, {self.text_encoder_layers} of text encoders, {self.other_keys} other keys",
            "rank": ", ".join(f"{rank} ({count} layers)" for rank, count in self.ranks.items()),
            "scale": ", ".join(f"{scale:g}" for scale in self.scales[:5]),
            "precision": ", ".join(self.dtypes),
            "orthogonality": f"largest entry of A Aᵀ - I: {self.orthogonality:.1e}",
            "trigger words": ", ".join(self.trigger_words),
            "prompts": self.template or "",
            "strength": strength,
            "weight": "unknown" if self.recommended_weight is None else f"{self.recommended_weight:g} (plain LoRA)",
            "licence": self.licence or "",
            "fingerprint": self.fingerprint or "",
            "sha256": self.sha256,
            "of the tensors": f"{self.tensors_sha256}, {said[self.header_hash_matches]}",
        }
        return {name: text for name, text in facts.items() if text}


def inspect_file(path: Path) -> Inspection:
    """Look at an adapter file, or at a folder as PEFT saves it. AdapterFileError where it is none."""
    file = read_lora(path)
    header = file.header
    denoiser = {layer: factors for layer, factors in file.factors.items() if not is_of_text(layer)}
    size = 8 + int.from_bytes(file.data[:8], "little")
    tensors_sha256 = hashlib.sha256(file.data[size:]).hexdigest()
    stated = header.get("modelspec.hash_sha256", "").removeprefix("0x") or header.get("sshs_model_hash")
    return Inspection(
        path=str(path),
        origin=name_origin(path, file),
        family=find_family(file),
        base=header.get("pairlora.base") or header.get("ss_sd_model_name"),
        role=header.get("pairlora.role"),
        layers=len(denoiser),
        text_encoder_layers=len(file.factors) - len(denoiser),
        other_keys=len(file.others),
        ranks=dict(sorted(Counter(len(factors.a) for factors in file.factors.values()).items())),
        scales=tuple(sorted({round(factors.scale, 6) for factors in file.factors.values()})),
        dtypes=tuple(sorted({str(factors.a.dtype).removeprefix("torch.") for factors in file.factors.values()})),
        orthogonality=measure_residual(file.factors),
        trigger_words=find_triggers(header),
        template=header.get("pairlora.style_template"),
        recommended_strength=_read_number(header, "pairlora.recommended_strength"),
        recommended_weight=_read_number(header, "pairlora.recommended_weight"),
        licence=header.get("modelspec.license"),
        fingerprint=header.get("pairlora.fingerprint"),
        sha256=hashlib.sha256(file.data).hexdigest(),
        tensors_sha256=tensors_sha256,
        header_hash_matches=None if stated is None else stated == tensors_sha256,
    )


def is_of_text(layer: str) -> bool:
    """Whether a layer is one of a text encoder."""
    return layer.startswith(("lora_te", "text_encoder"))


def name_origin(path: Path, file: LoraFile) -> str:
    """Who wrote the file, and in which key style."""
    if "pairlora.fingerprint" in file.header:
        return f"pairlora, {file.style} keys"
    if path.is_dir():
        return "a folder of PEFT"
    trainer = "kohya's trainer" if "ss_network_module" in file.header else "a trainer that does not say its name"
    return f"{trainer}, {file.style} keys"


def find_family(file: LoraFile) -> str | None:
    """Which bases the file is for: by its header, else by its layers' names and the width of the text that they read."""
    header = file.header
    if family := header.get("pairlora.family"):
        return family
    for key, known in (("ss_base_model_version", VERSIONS), ("modelspec.architecture", ARCHITECTURES)):
        if named := next((family for begin, family in known.items() if header.get(key, "").startswith(begin)), None):
            return named
    if any(re.search(r"single_transformer_blocks|double_blocks", layer) for layer in file.factors):
        return "flux"
    widths = {factors.a.shape[1] for layer, factors in file.factors.items() if re.search(r"attn2[._](processor\.)?to_[kv]$", layer)}
    return TEXT_WIDTHS.get(widths.pop()) if len(widths) == 1 else None


def find_triggers(header: Mapping[str, str]) -> tuple[str, ...]:
    """Trigger words by the header: the phrase of ModelSpec, then kohya's most frequent tags."""
    words = [phrase] if (phrase := header.get("modelspec.trigger_phrase")) else []
    try:
        folders = json.loads(header.get("ss_tag_frequency", "{}"))
        tags = Counter({tag: int(count) for counts in folders.values() for tag, count in counts.items()})
    except (ValueError, TypeError, AttributeError):
        return tuple(words)  # what other trainers write there is theirs
    return tuple(dict.fromkeys([*words, *(tag for tag, _ in tags.most_common(SHOWN_TAGS))]))


def _read_number(header: Mapping[str, str], key: str) -> float | None:
    try:
        return float(header[key])
    except (KeyError, ValueError):
        return None
