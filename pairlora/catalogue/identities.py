"""What makes two inversions, two styled assets or two finished assets the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from pairlora.bases.loading import digest_model
from pairlora.catalogue.canvases import Box
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.records import Asset, ChosenAdapter
from pairlora.identity import ALGORITHM_VERSION, describe_profile, digest_record

CATALOGUE_VERSION = 1
"""Raised by every change of the code that changes inversions or styled assets."""


def describe_way(run: CatalogueConfig) -> str:
    """Way in, tiles, scheduler, steps, timestep and size of the drawing, as one line."""
    entry, drawing = run.entry, run.drawing
    how = f"{entry.refinements} refinements" if entry.way == "invert" else f"seed {entry.seed}"
    if (control := entry.net) is not None:
        how = f"{control.name} at {control.scale:g}, edges {control.low} to {control.high}, from {control.start}, {how}"
    if run.tiles.most > 1:
        told = "" if run.tiles.prompt is None else f" and show '{run.tiles.prompt}'"
        how = f"{how}, up to {run.tiles.most} tiles that share {run.tiles.overlap:g}{told}"
    return f"{entry.way}, {how}/{describe_profile(drawing)}/λ_cfg {drawing.guidance_scale:g}"


def _describe_start(run: CatalogueConfig, base_digest: str) -> dict[str, Any]:
    net = {"control": digest_model(run.entry.net.name, run.entry.net.revision, "entry.control")} if run.entry.net else {}
    return net | {
        "algorithm": [ALGORITHM_VERSION, CATALOGUE_VERSION],
        "base": base_digest,
        "dtype": run.base.dtype,
        "profile": describe_way(run),
        "background": run.files.background,
    }


def identify_inversion(run: CatalogueConfig, *, image_sha256: str, prompt: str, base_digest: str, tile: Box | None = None) -> str:
    """The identity of the latents that a picture, or a tile of it, is inverted to: no adapter, no strength, no output format."""
    facts = {"latents": "inverted", "image": image_sha256, "prompt": prompt} | ({"tile": list(tile)} if tile else {})
    return digest_record(_describe_start(run, base_digest) | facts)


def identify_styled(
    run: CatalogueConfig, asset: Asset, adapter: ChosenAdapter | None, strength: float, *, digests: Mapping[str, str], base_digest: str
) -> str:
    """The identity of a styled asset. The reconstruction (strength 0) depends on no adapter. `digests` are those of image and mask."""
    return digest_record(
        _describe_start(run, base_digest)
        | {
            "digests": dict(digests),
            "prompt": asset.prompt,
            "adapter": adapter.fingerprint if adapter else None,
            "style_prompt": adapter.style_prompt(asset.prompt) if adapter else None,
            "strength": strength,
            "files": run.files.model_dump(mode="json", exclude={"background"}),
        }
    )


def identify_asset(
    run: CatalogueConfig,
    asset: Asset,
    adapters: Sequence[ChosenAdapter],
    *,
    digests: Mapping[str, str],
    truths: Mapping[str, str],
    base_digest: str,
    encoders: Mapping[str, Any],
) -> str:
    """The identity of all that a run makes and measures of an asset, without a model being loaded."""
    pictures = [identify_styled(run, asset, None, 0.0, digests=digests, base_digest=base_digest)]
    for adapter in adapters:
        pictures += [
            identify_styled(run, asset, adapter, strength, digests=digests, base_digest=base_digest)
            for strength in run.strengths
            if strength
        ]
    compared = [[adapter.label, *adapter.compared] for adapter in adapters]
    return digest_record({"pictures": pictures, "compared": compared, "truths": dict(truths), "encoders": dict(encoders)})
