"""What an asset is drawn on: a size near its shape that the base can draw at once, or a larger one in tiles that overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from pairlora.catalogue.buckets import choose_bucket
from pairlora.catalogue.config import TilesConfig

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""


@dataclass(frozen=True)
class Canvas:
    """`width` x `height` pixels that are drawn in pieces of one size: the `boxes`, which cover it and overlap where there are several."""

    width: int
    height: int
    boxes: tuple[Box, ...]

    @property
    def piece(self) -> tuple[int, int]:
        """(height, width) of every piece."""
        left, top, right, bottom = self.boxes[0]
        return bottom - top, right - left

    def fit(self, picture: Image.Image) -> Image.Image:
        """A picture at the canvas's size."""
        size = (self.width, self.height)
        return picture if picture.size == size else picture.resize(size, Resampling.LANCZOS)

    def cut(self, picture: Image.Image) -> list[Image.Image]:
        """The pieces of a picture of the canvas's size."""
        return [picture] if len(self.boxes) == 1 else [picture.crop(box) for box in self.boxes]

    def join(self, pieces: Sequence[Image.Image]) -> Image.Image:
        """One picture of RGB pieces. Where they overlap, each weighs as much as it is far from its own edge."""
        if len(pieces) == 1:
            return pieces[0]
        weight = _weigh(*self.piece)
        total, weights = np.zeros((self.height, self.width, 3), np.float32), np.zeros((self.height, self.width, 1), np.float32)
        for piece, (left, top, right, bottom) in zip(pieces, self.boxes, strict=True):
            total[top:bottom, left:right] += weight * np.asarray(piece.convert("RGB"), np.float32)
            weights[top:bottom, left:right] += weight
        return Image.fromarray((total / weights + 0.5).astype(np.uint8))


def _weigh(height: int, width: int) -> np.ndarray:
    """Weights (height, width, 1) that rise from the edges to the middle, so that two pieces cross over in a straight line."""
    rise = [np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float32) for side in (height, width)]
    return (rise[0][:, None] * rise[1][None, :])[..., None]


def choose_canvas(width: int, height: int, *, size: int, multiple: int, tiles: TilesConfig) -> Canvas:
    """The largest canvas of an asset's shape, no larger than the asset, that `tiles.most` tiles of `size`² pixels cover.

    An asset that one such tile covers, or that is too long for them, is drawn as one piece at the size that the base can draw.
    """
    shorter, longer = sorted((width, height))
    for short in range(shorter // multiple * multiple if tiles.most > 1 else 0, size - 1, -multiple):
        long = short * longer // shorter // multiple * multiple
        if 1 < _count(short, size, tiles.overlap) * _count(long, size, tiles.overlap) <= tiles.most:
            return _lay_tiles(*((long, short) if width > height else (short, long)), size, multiple, tiles.overlap)
    drawn_height, drawn_width = choose_bucket(width, height, size=size, multiple=multiple)
    return Canvas(drawn_width, drawn_height, ((0, 0, drawn_width, drawn_height),))


def _count(side: int, size: int, overlap: float) -> int:
    """How many tiles of `size` pixels cover a side."""
    shared = round(size * overlap)
    return -(-(side - shared) // (size - shared))


def _lay_tiles(width: int, height: int, size: int, multiple: int, overlap: float) -> Canvas:
    lefts, tops = (_place(side, _count(side, size, overlap), size, multiple) for side in (width, height))
    return Canvas(width, height, tuple((left, top, left + size, top + size) for top in tops for left in lefts))


def _place(side: int, count: int, size: int, multiple: int) -> list[int]:
    """Where tiles begin along a side: from end to end, as evenly as `multiple` allows."""
    return [round(index * (side - size) / max(1, count - 1) / multiple) * multiple for index in range(count)]
