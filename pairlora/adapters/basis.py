"""The frozen A matrices: orthonormal directions, the first for the content adapter, the next for the style adapter."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pairlora.errors import RankError


def split_basis(width: int, content_rank: int, style_rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw `A_c` (content_rank, width) and `A_s` (style_rank, width), float32, with `A_c A_sᵀ = 0` and `A Aᵀ = I`.

    QR of a seeded Gaussian in float64 (Jones et al. 2024, section 3.2); the signs are fixed so that the draw is
    uniform over orthonormal frames. Equal width and seed give the same matrices on one machine, but the last bits
    vary with LAPACK: store A, never re-derive it. Raises RankError where the ranks exceed the width.
    """
    if (total := content_rank + style_rank) > width:
        raise RankError(f"content_rank + style_rank = {total} exceeds layer width {width}; lower one of the ranks")
    gaussian = np.random.Generator(np.random.PCG64([seed, width])).standard_normal((width, total))
    frame, triangle = np.linalg.qr(gaussian)
    frame *= np.sign(np.diag(triangle))
    rows = torch.from_numpy(np.ascontiguousarray(frame.T)).float()
    return rows[:content_rank].contiguous(), rows[content_rank:].contiguous()


@dataclass(frozen=True)
class Basis:
    """The A matrices of all layer widths: `content[width]` is (content_rank, width), `style[width]` (style_rank, width)."""

    seed: int
    content: dict[int, Tensor]
    style: dict[int, Tensor]

    @classmethod
    def draw(cls, widths: set[int], content_rank: int, style_rank: int, seed: int) -> "Basis":
        split = {width: split_basis(width, content_rank, style_rank, seed) for width in sorted(widths)}
        return cls(seed, {width: pair[0] for width, pair in split.items()}, {width: pair[1] for width, pair in split.items()})

    @property
    def digest(self) -> str:
        """sha256 over widths and float32 bytes: equal digests share `A x`."""
        hasher = hashlib.sha256()
        for role, matrices in (("content", self.content), ("style", self.style)):
            for width, matrix in sorted(matrices.items()):
                hasher.update(f"{role} {width} {tuple(matrix.shape)}".encode())
                hasher.update(matrix.detach().cpu().float().contiguous().numpy().tobytes())
        return hasher.hexdigest()
