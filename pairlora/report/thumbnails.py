"""Thumbnails of the pictures of some pairs, read side by side; a picture that cannot be read has none."""

import logging
from base64 import b64encode
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from PIL import Image

from pairlora.config import PictureLimits
from pairlora.errors import CorruptObjectError, PairloraError, StoreError
from pairlora.images import decode_picture, encode_png, make_thumbnail, read_picture
from pairlora.records import ImageRecord
from pairlora.report.collection import PairContents
from pairlora.store.failures import DRIVERS
from pairlora.store.run_store import RunStore

log = logging.getLogger(__name__)

THREADS = 16
CRISP_SIDE = 96
"""Pictures of at most so many pixels a side stay as they are: JPEG would smear them."""

Key = TypeVar("Key", bound=Hashable)
Source = TypeVar("Source")


@dataclass(frozen=True, slots=True)
class ThumbnailFile:
    """A small picture as a file beside a page; crisp where its pixels are those of the picture, to be shown as squares when enlarged."""

    file_name: str
    width: int
    height: int
    is_crisp: bool


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, encoded."""

    data: bytes
    suffix: str
    width: int
    height: int

    @property
    def is_crisp(self) -> bool:
        """Whether its pixels are those of the picture."""
        return self.suffix == "png"

    @property
    def file_name(self) -> str:
        """A name that its bytes decide, for a file beside the page."""
        return f"{sha256(self.data).hexdigest()[:24]}.{self.suffix}"

    @property
    def file(self) -> ThumbnailFile:
        """The same without its bytes."""
        return ThumbnailFile(self.file_name, self.width, self.height, self.is_crisp)

    @property
    def data_url(self) -> str:
        """The picture as a URL that needs no other file."""
        kind = "png" if self.suffix == "png" else "jpeg"
        return f"data:image/{kind};base64,{b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails by what they show: pictures of pairs by URL, drawn pictures by image id; what is missing could not be read."""

    given: Mapping[str, Thumbnail]
    drawn: Mapping[str, Thumbnail]


def read_thumbnails(store: RunStore, pairs: Sequence[PairContents], limits: PictureLimits) -> Thumbnails:
    """Thumbnails of content, style and ground truth of every pair, and of every picture that was drawn."""
    described = [pair.job.pair for pair in pairs if pair.job is not None]
    urls = dict.fromkeys(url for pair in described for url in (pair.content, pair.style, *pair.truth.values()))
    records = [image.record for pair in pairs for image in pair.images]
    return Thumbnails(
        given=_shrink_all({url: url for url in urls}, lambda url: read_picture(url, limits).image),
        drawn=read_drawn(store, records, limits),
    )


def read_drawn(store: RunStore, records: Iterable[ImageRecord], limits: PictureLimits) -> dict[str, Thumbnail]:
    """Thumbnails of drawn pictures by image id."""

    def read(record: ImageRecord) -> Image.Image:
        return decode_picture(store.read_payload(record.url, record.sha256, record.bytes), limits, name=record.url)

    return _shrink_all({record.image_id: record for record in records}, read)


def shrink(picture: Image.Image) -> Thumbnail:
    """PNG at its own size where the picture is small, else JPEG of at most 256 pixels a side."""
    if max(picture.size) <= CRISP_SIDE:
        return Thumbnail(encode_png(picture), "png", *picture.size)
    data = make_thumbnail(picture)
    scale = min(1.0, 256 / max(picture.size))
    return Thumbnail(data, "jpg", *(max(1, round(length * scale)) for length in picture.size))


def _shrink_all(sources: Mapping[Key, Source], read: Callable[[Source], Image.Image]) -> dict[Key, Thumbnail]:
    def shrink_one(source: Source) -> Thumbnail | None:
        try:
            return shrink(read(source))
        except Exception as error:
            if not _is_unreadable(error):
                raise
            log.warning("no thumbnail: %s", error)
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        thumbnails = pool.map(shrink_one, sources.values())
        return {key: thumbnail for key, thumbnail in zip(sources, thumbnails, strict=True) if thumbnail is not None}


def _is_unreadable(error: Exception) -> bool:
    """Whether a picture is missing, damaged or out of reach; the exceptions of drivers share no root and cannot be imported here."""
    if isinstance(error, StoreError):
        return isinstance(error, CorruptObjectError)
    return isinstance(error, (PairloraError, OSError)) or type(error).__module__.partition(".")[0] in DRIVERS
