"""One asset on its way through a shard: what it is drawn from, and the pictures that it calls for."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image
from PIL.Image import Resampling

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


@dataclass
class AssetWork(RowWork[AssetJob]):
    """One asset on its way through a shard; `picture` is what the base sees of it, on a background at the size of its bucket."""

    picture: Image.Image = field(init=False)
    origin: str = ""
    planned: list[PlannedStyling] = field(default_factory=list)
    known: dict[str, StyledRecord] = field(default_factory=dict)
    references: list[StyledReference] = field(default_factory=list)

    @property
    def missing(self) -> list[PlannedStyling]:
        """Pictures that the store lacks."""
        return [one for one in self.planned if one.styled_id not in self.known]

    def plan(self, run: CatalogueConfig, adapters: Sequence[ChosenAdapter], base_digest: str) -> None:
        """List the pictures that the asset calls for, the reconstruction first, and name what they start from."""
        asset, digests = self.job.asset, {"image": self.job.image_sha256, "mask": self.job.mask_sha256}
        self.origin = identify_inversion(run, image_sha256=self.job.image_sha256, prompt=asset.prompt, base_digest=base_digest)

        def plan_one(adapter: ChosenAdapter | None, strength: float) -> PlannedStyling:
            styled_id = identify_styled(run, asset, adapter, strength, digests=digests, base_digest=base_digest)
            return PlannedStyling(styled_id, adapter, strength)

        strengths = [strength for strength in run.strengths if strength]
        self.planned = [plan_one(None, 0.0), *(plan_one(adapter, strength) for adapter in adapters for strength in strengths)]

    def request_plain(self, seed: int) -> ImageRequest:
        """What the base alone draws of the asset."""
        return ImageRequest(self.job.asset.prompt, seed, origin=self.origin)

    def request(self, one: PlannedStyling, seed: int) -> ImageRequest:
        """A planned picture as the sampler is asked for it, the adapter in slot 0."""
        prompt = self.job.asset.prompt
        styles = () if one.adapter is None else (StyleTerm(0, one.adapter.style_prompt(prompt), one.strength),)
        return ImageRequest(prompt, seed, styles, origin=self.origin)


def fit_bucket(picture: Image.Image, bucket: tuple[int, int]) -> Image.Image:
    """A picture at (height, width) of its bucket."""
    height, width = bucket
    return picture if picture.size == (width, height) else picture.resize((width, height), Resampling.LANCZOS)
