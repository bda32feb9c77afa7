"""One asset on its way through a shard: what it is drawn from, and the pictures that it calls for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image

from pairlora.catalogue.canvases import Box, Canvas
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.identities import identify_inversion, identify_styled
from pairlora.catalogue.records import AssetJob, ChosenAdapter, StyledRecord, StyledReference
from pairlora.execution.pair_work import RowWork
from pairlora.sampling.trajectories import ImageRequest, StyleTerm


@dataclass(frozen=True)
class PlannedStyling:
    """A picture that an asset calls for: an adapter at a strength; without one the reconstruction, of strength 0."""

    styled_id: str
    adapter: ChosenAdapter | None
    strength: float


@dataclass(frozen=True)
class Piece:
    """What is drawn at once of an asset: all of it, or a tile. `prompt` is what it shows, `origin` names the latents to begin at."""

    work: "AssetWork"
    picture: Image.Image
    box: Box
    prompt: str
    origin: str

    def request_plain(self, seed: int) -> ImageRequest:
        """What the base alone draws of it."""
        return ImageRequest(self.prompt, seed, origin=self.origin)

    def request(self, one: PlannedStyling, seed: int) -> ImageRequest:
        """Its part of a planned picture as the sampler is asked for it, the adapter in slot 0."""
        styles = () if one.adapter is None else (StyleTerm(0, one.adapter.style_prompt(self.prompt), one.strength),)
        return ImageRequest(self.prompt, seed, styles, origin=self.origin)


@dataclass
class AssetWork(RowWork[AssetJob]):
    """One asset on its way through a shard; `picture` is what the base sees of it, on a background at the size of its canvas."""

    canvas: Canvas = field(init=False)
    picture: Image.Image = field(init=False)
    pieces: list[Piece] = field(default_factory=list)
    planned: list[PlannedStyling] = field(default_factory=list)
    known: dict[str, StyledRecord] = field(default_factory=dict)
    references: list[StyledReference] = field(default_factory=list)

    @property
    def drawn_prompt(self) -> str:
        """What its pieces are drawn under: the asset's prompt, or what the configuration says of every tile."""
        return self.pieces[0].prompt

    @property
    def missing(self) -> list[PlannedStyling]:
        """Pictures that the store lacks."""
        return [one for one in self.planned if one.styled_id not in self.known]

    def lay_out(self, picture: Image.Image, canvas: Canvas, run: CatalogueConfig, base_digest: str) -> None:
        """Put the asset on a canvas and name what its pieces begin at."""
        self.canvas, self.picture = canvas, canvas.fit(picture)
        tiled = len(canvas.boxes) > 1
        prompt = run.tiles.prompt if tiled and run.tiles.prompt is not None else self.job.asset.prompt
        facts = {"image_sha256": self.job.image_sha256, "prompt": prompt, "base_digest": base_digest}
        origins = [identify_inversion(run, **facts, tile=box if tiled else None) for box in canvas.boxes]
        cut = canvas.cut(self.picture)
        self.pieces = [Piece(self, picture, box, prompt, origin) for picture, box, origin in zip(cut, canvas.boxes, origins, strict=True)]

    def plan(self, run: CatalogueConfig, adapters: Sequence[ChosenAdapter], base_digest: str) -> None:
        """List the pictures that the asset calls for, the reconstruction first."""
        asset, digests = self.job.asset, {"image": self.job.image_sha256, "mask": self.job.mask_sha256}

        def plan_one(adapter: ChosenAdapter | None, strength: float) -> PlannedStyling:
            styled_id = identify_styled(run, asset, adapter, strength, digests=digests, base_digest=base_digest)
            return PlannedStyling(styled_id, adapter, strength)

        strengths = [strength for strength in run.strengths if strength]
        self.planned = [plan_one(None, 0.0), *(plan_one(adapter, strength) for adapter in adapters for strength in strengths)]


def cut_pieces(works: Sequence[AssetWork], most: int) -> Iterator[list[AssetWork]]:
    """The assets in batches of at most `most` pieces; one that has more is a batch by itself."""
    batch: list[AssetWork] = []
    for work in works:
        if batch and sum(len(one.pieces) for one in (*batch, work)) > most:
            yield batch
            batch = []
        batch.append(work)
    if batch:
        yield batch
