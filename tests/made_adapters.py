"""Random adapters of tiny bases, and the releases that their files are written from."""

import torch
from staged_run import STARTED

from pairlora.adapters import Role
from pairlora.adapters.files import Matrices
from pairlora.adapters.masters import StoredAdapter
from pairlora.config import TrainConfig
from pairlora.records import AdapterRecord, Pair
from pairlora.release.contents import Release
from pairlora.training.packs import choose_layers, draw_basis

TRAIN = TrainConfig(content_rank=4, style_rank=4, resolution=32)
PAIR = Pair(
    row=1,
    pair_id="fox",
    content="",
    style="",
    content_prompt="a fox",
    style_template="{prompt}, in ink",
    identifier="sbu",
    licence="CC0-1.0",
)


def make_matrices(base, role: Role = Role.STYLE, seed: int = 0, train: TrainConfig = TRAIN) -> Matrices:
    """An adapter with random B on every layer that takes one; the tensors of a layer on the meta device are on it."""
    generator = torch.Generator().manual_seed(seed)
    basis = draw_basis(base, train)
    frozen = basis.style if role is Role.STYLE else basis.content
    matrices = {}
    for name in choose_layers(base, train):
        layer = base.denoiser.get_submodule(name)
        a = frozen[layer.in_features]
        shape = (layer.out_features, len(a))
        b = torch.empty(shape, device="meta") if base.device.type == "meta" else 0.2 * torch.randn(shape, generator=generator)
        matrices[name] = (a, b)
    return matrices


def make_adapter(base, role: Role = Role.STYLE, seed: int = 0) -> StoredAdapter:
    """The same as it comes from a store."""
    blocks = str(base.denoiser.config.get("layers_per_block", ""))
    facts = {"family": base.family, "blocks": blocks, "base": "tiny", "role": str(role), "rank": "4", "fingerprint": "f" * 64}
    return StoredAdapter(make_matrices(base, role, seed), facts, base.denoiser_name)


def make_release() -> Release:
    """A release of an adapter that a run knows the pair of."""
    fields = {"fingerprint": "f" * 64, "style_url": "", "style_sha256": "", "style_bytes": 0, "content_url": "", "content_sha256": ""}
    fields |= {"content_bytes": 0, "basis_digest": "b", "train": TRAIN.model_dump(), "base": "tiny", "base_digest": "d", "losses": ()}
    record = AdapterRecord.model_validate(fields | {"seconds": 1.0, "device": "cpu", "trained_at": STARTED})
    return Release("fox", record, PAIR, strength=2.5)
