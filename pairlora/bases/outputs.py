"""How wide the projections of a base are that take adapters, read without loading it: what an adapter's B takes in a store."""

from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open

from pairlora.bases.loading import locate_base

UNET_PROJECTIONS = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")
PROJECTIONS_A_BLOCK = 8
"""Queries, keys, values and outputs of self- and cross-attention."""
BLOCKS = {"sdxl": {640: 10, 1280: 60}, "sd15": {320: 5, 640: 5, 1280: 6}}
"""Transformer blocks of the published UNets by width, for bases that are not on this machine."""
BYTES = 4
"""B is kept in float32."""


def count_adapter_bytes(name: str, content_rank: int, style_rank: int) -> int | None:
    """Bytes of both B of an adapter: `rank` rows of every output of every projection. Null where the base is not known here.

    The A lies in the store once for all adapters.
    """
    outputs = sum(_iterate_outputs(name))
    return (content_rank + style_rank) * outputs * BYTES if outputs else None


def _iterate_outputs(name: str) -> Iterator[int]:
    """Output widths of the projections, by the weights' headers where the base is a folder with a UNet."""
    folder = Path(locate_base(name)) / "unet"
    if folder.is_dir():
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="numpy") as weights:
                for key in weights.keys():  # noqa: SIM118  not a map
                    if ".attn" in key and key.endswith(UNET_PROJECTIONS):
                        yield weights.get_slice(key).get_shape()[0]
        return
    for width, blocks in BLOCKS.get(name, {}).items():
        yield width * blocks * PROJECTIONS_A_BLOCK
