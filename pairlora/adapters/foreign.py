"""LoRA files of any trainer: diffusers and PEFT keys new and old, kohya keys, PEFT folders; each pair of factors with its scale.

A file is read by its keys alone. Which layer of a base a key means is found by naming the base's own layers in each style, so that
nothing is guessed from underscores.
"""

import hashlib
import json
import math
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pairlora.adapters.files import DENOISERS, Matrices, read_tensors
from pairlora.adapters.kohya import FAMILIES, name_layer
from pairlora.errors import AdapterFileError
from pairlora.identity import digest_record
from pairlora.store.failures import failing_as_store_error
from pairlora.store.urls import connect, name_url

DOWN = {
    "PEFT": re.compile(r"(?P<layer>.+)\.lora_A(?:\.[^.]+)?\.weight"),
    "kohya": re.compile(r"(?P<layer>.+)\.lora_down\.weight"),
    "diffusers": re.compile(r"(?P<layer>.+)\.lora(?:_linear_layer)?\.down\.weight"),
    "diffusers' processors": re.compile(r"(?P<layer>.+\.processor\.to_(?:q|k|v|out))_lora\.down\.weight"),
}
"""What the first factor is called, by key style; the second has the same name with the other words of `UP`."""
UP = {".lora_A": ".lora_B", ".lora_down.": ".lora_up.", ".down.": ".up."}
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""The files of a PEFT folder."""
ALPHAS = ("lora_alpha", "alpha_pattern", "use_rslora")
"""The settings of PEFT that decide scales: they stand beside the weights, not in them."""
MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
PREFIXES = ("base_model.model.", *(f"{denoiser}." for denoiser in DENOISERS), "diffusion_model.")


@dataclass(frozen=True)
class Factors:
    """One layer's `A` (rank, in) and `B` (out, rank) as the file has them, and the scale of their product by alpha and rank."""

    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True)
class LoraFile:
    """What a file holds: factors by the layer's name in it, its header, its key style, and keys that are no plain LoRA's.

    `settings` are those that PEFT keeps beside the file, as far as they decide scales.
    """

    factors: Mapping[str, Factors]
    header: Mapping[str, str]
    style: str
    others: tuple[str, ...] = ()
    data: bytes = field(default=b"", repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """The digest of the file's bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def identity(self) -> str:
        """What decides the pictures that are drawn with it: the digest of its bytes, with the settings beside them where there are any."""
        return digest_record({"file": self.sha256, "settings": dict(self.settings)}) if self.settings else self.sha256


@dataclass(frozen=True)
class ForeignStyle:
    """A LoRA on the layers of one base, scales multiplied into B, and the names in its file that are no linear layer of it."""

    matrices: Matrices
    left_out: tuple[str, ...]


def read_lora(place: Path | str) -> LoraFile:
    """Read a safetensors file, or a folder as PEFT saves it, at a path or a URL of s3, gs or az.

    The weights of such a folder are read with the settings beside them, whichever of both is named. AdapterFileError where it is
    none, cannot be read or holds no LoRA; StoreError where the bucket fails.
    """
    name, url = name_url(str(place)), str(place.absolute() if isinstance(place, Path) else place)
    data, settings = _fetch(name, url)
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        raise AdapterFileError(f"{name} is a pickle, whatever its name: opening one runs what is in it; ask for a safetensors file")
    try:
        return decode_lora(data, settings)
    except AdapterFileError as error:
        raise AdapterFileError(f"{name}: {error}") from error


def _fetch(name: str, url: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a file, and PEFT's settings where it lies in a folder of PEFT's."""
    try:
        with failing_as_store_error("read", name, quiet=MISSING):
            filesystem, path = connect(url)
            folder, file = posixpath.split(path)
            if filesystem.isdir(path):
                settings = _read_settings(name, filesystem, path)
                path = f"{path}/{WEIGHTS}"
            else:
                beside = file == WEIGHTS and filesystem.exists(f"{folder}/{CONFIG}")
                settings = _read_settings(posixpath.dirname(name), filesystem, folder) if beside else {}
            return cast("bytes", filesystem.cat_file(path)), settings
    except MISSING as error:
        raise AdapterFileError(f"{name} cannot be read: {error.strerror or 'there is no such file'}") from error


def _read_settings(name: str, filesystem: Any, folder: str) -> dict[str, Any]:
    try:
        config = json.loads(filesystem.cat_file(f"{folder}/{CONFIG}"))
    except (*MISSING, ValueError) as error:
        raise AdapterFileError(f"{name} is no adapter's folder: {CONFIG} cannot be read as JSON") from error
    if not isinstance(config, dict):
        raise AdapterFileError(f"{name}/{CONFIG} holds no settings")
    return {key: value for key in ALPHAS if (value := config.get(key)) is not None and value is not False and value != {}}


def decode_lora(data: bytes, config: Mapping[str, Any] | None = None) -> LoraFile:
    """The LoRA in the bytes of a safetensors file; `config` is what PEFT keeps beside it."""
    tensors, header = read_tensors(data)
    found = [(style, match, name) for name in tensors for style, pattern in DOWN.items() if (match := pattern.fullmatch(name))]
    if not found:
        raise AdapterFileError("the file holds no LoRA: none of its keys is a first factor (lora_A, lora_down, lora.down)")
    beside = dict(config or {})
    settings = _read_alphas(header) | beside
    factors, used = {}, set()
    for _, match, name in found:
        layer, up = match["layer"], _name_up(name)
        if (b := tensors.get(up)) is None:
            raise AdapterFileError(f"{layer} has a first factor and no second ({up})")
        alpha = tensors.get(f"{layer}.alpha")
        if alpha is not None and alpha.numel() != 1:
            raise AdapterFileError(f"{layer}: alpha has {alpha.numel()} values instead of one")
        told = float(alpha) if alpha is not None else _find_alpha(layer, settings)
        factors[layer] = _make_factors(layer, tensors[name], b, told, over_root=alpha is None and bool(settings.get("use_rslora")))
        used |= {name, up, f"{layer}.alpha"}
    return LoraFile(factors, header, found[0][0], tuple(sorted(tensors.keys() - used)), data, beside)


def _name_up(name: str) -> str:
    first, second = next((first, second) for first, second in UP.items() if first in name)
    head, _, tail = name.rpartition(first)
    return head + second + tail


def _make_factors(layer: str, a: Tensor, b: Tensor, alpha: float | None, *, over_root: bool) -> Factors:
    """Factors with their scale: alpha over the rank, or over its root by PEFT's `use_rslora` (Kalajdzievski 2023, arXiv 2312.03732)."""
    rank = a.shape[0] if a.dim() else 0
    if a.dim() < 2 or b.dim() < 2 or b.shape[1] != rank or not rank:
        raise AdapterFileError(f"{layer}: factors of shapes {tuple(a.shape)} and {tuple(b.shape)} have no product")
    scale = 1.0 if alpha is None else alpha / (math.sqrt(rank) if over_root else rank)
    if not math.isfinite(scale):
        raise AdapterFileError(f"{layer}: alpha is {alpha}")
    return Factors(a, b, scale)


def _read_alphas(header: Mapping[str, str]) -> dict[str, Any]:
    """The settings that diffusers keeps in a header, without the denoiser's name before each."""
    try:
        peft = json.loads(header.get("lora_adapter_metadata", "{}"))
    except ValueError:
        peft = None
    if not isinstance(peft, dict):
        raise AdapterFileError("the header's lora_adapter_metadata is no JSON object")
    return {key.partition(".")[2]: value for key, value in peft.items() if key.partition(".")[0] in DENOISERS}


def _find_alpha(layer: str, settings: Mapping[str, Any]) -> float | None:
    """PEFT's alpha of a layer: that of the pattern it ends with, else the one for all; null where the file says none."""
    patterns = settings.get("alpha_pattern") or {}
    own = next((alpha for name, alpha in patterns.items() if layer == name or layer.endswith(f".{name}")), settings.get("lora_alpha"))
    if own is not None and not isinstance(own, (int, float)):
        raise AdapterFileError(f"{layer}: lora_alpha is {own!r}")
    return own


def strip_prefixes(layer: str) -> str:
    """A layer's name in a diffusers or PEFT file as the denoiser knows it."""
    for prefix in PREFIXES:
        layer = layer.removeprefix(prefix)
    return re.sub(r"\.processor\.to_out$", ".to_out.0", layer).replace(".processor.", ".")


def map_to_base(file: LoraFile, denoiser: nn.Module, family: str) -> ForeignStyle:
    """The LoRA on the linear layers of a base's denoiser. AdapterFileError where it fits none, or their widths differ.

    Text encoders, convolutions and what is no plain LoRA are left out, and named.
    """
    if family == "flux" and any(layer.startswith(("lora_unet_", "double_blocks", "single_blocks")) for layer in file.factors):
        file = _convert_flux(file)
    linears = {name: module for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)}
    names = {name: name for name in linears} | _name_in_kohya_styles(linears, family, denoiser)
    matrices: Matrices = {}
    left_out = list(file.others)
    for layer, factors in file.factors.items():
        name = names.get(layer) or names.get(strip_prefixes(layer))
        if name is None:
            left_out.append(layer)
            continue
        matrices[name] = _flatten(name, factors, linears[name])
    if not matrices:
        raise AdapterFileError(f"none of the file's {len(file.factors)} layers, such as {next(iter(file.factors))}, is one of this base")
    return ForeignStyle(matrices, tuple(left_out))


def _flatten(name: str, factors: Factors, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """A and scaled B as float32 matrices; kohya's files of SD 1.5 may have them as 1x1 convolutions."""
    a, b = (factor.float().flatten(1) for factor in (factors.a, factors.b))
    if (a.shape[1], b.shape[0]) != (linear.in_features, linear.out_features):
        wants = f"{linear.in_features} to {linear.out_features}"
        raise AdapterFileError(f"{name}: the file's layer is {a.shape[1]} to {b.shape[0]} wide, the base's {wants}; it is for another base")
    return a, b * factors.scale


def _name_in_kohya_styles(linears: Mapping[str, nn.Linear], family: str, denoiser: Any) -> dict[str, str]:
    """The base's layers by their kohya names, in SGM's block names and in diffusers'."""
    names = {f"lora_unet_{name.replace('.', '_')}": name for name in linears}
    if family in FAMILIES and isinstance(blocks := denoiser.config.get("layers_per_block"), int):
        names |= {name_layer(name, family, blocks): name for name in linears if ".attentions." in f".{name}"}
    return names


def _convert_flux(file: LoraFile) -> LoraFile:
    """A file in the names of FLUX's authors, whose projections are fused, in those of diffusers: by diffusers' own reader."""
    from diffusers import FluxPipeline

    tensors, _ = read_tensors(file.data)
    converted: Any = FluxPipeline.lora_state_dict(tensors)
    factors = {}
    for name, a in converted.items():
        if (match := DOWN["PEFT"].fullmatch(name)) is not None:
            factors[match["layer"]] = Factors(a, converted[_name_up(name)], 1.0)
    return LoraFile(factors, file.header, file.style, file.others)


def describe_left_out(left_out: Sequence[str]) -> str:
    """What of a file style guidance has no place for, in words."""
    return f"{len(left_out)} of its keys, such as {left_out[0]}: text encoders, convolutions, or no plain LoRA"


def measure_residual(factors: Mapping[str, Factors]) -> float:
    """The largest entry of `A Aᵀ - I` over all layers: 0 where the rows of A are orthonormal, as ours are."""
    products = ((factor.a.double().flatten(1) @ factor.a.double().flatten(1).T) for factor in factors.values())
    return max(float((product - torch.eye(len(product), dtype=product.dtype)).abs().max()) for product in products)
