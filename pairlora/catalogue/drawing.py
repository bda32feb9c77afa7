"""Assets drawn in the styles of adapters: from the finished picture to latents, and from there by style guidance.

Latents that a picture was inverted to go through the store: all adapters and strengths start from them, in this run and later.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from PIL import Image
from torch import Tensor

from pairlora.adapters.dual import DualAdapters, Role
from pairlora.adapters.files import Matrices
from pairlora.adapters.masters import read_adapter
from pairlora.bases.interface import Base
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.identities import describe_way
from pairlora.catalogue.records import ChosenAdapter, InversionRecord
from pairlora.catalogue.work import AssetWork, PlannedStyling
from pairlora.errors import CorruptObjectError, DivergedError, MissingAdapterError
from pairlora.execution.drawing import decode_latents, encode_latents
from pairlora.execution.pipeline import style_attached
from pairlora.records import AdapterRecord
from pairlora.sampling.inversion import add_starting_noise, check_start, invert
from pairlora.sampling.sampler import Sampler, initial_noise
from pairlora.sampling.trajectories import ImageRequest, Trajectory
from pairlora.store.run_store import RunStore

log = logging.getLogger(__name__)
Wanted = list[tuple[AssetWork, PlannedStyling]]


class CatalogueDrawing:
    """Draws assets of one size together. `rows_computed` counts the rows of all forwards so far."""

    def __init__(self, run: CatalogueConfig, base: Base, store: RunStore):
        self.run = run
        self.base = base
        self.store = store
        self.rows_computed = 0
        self._adapters: dict[str, Matrices] = {}

    def check(self) -> None:
        """BaseModelError where the base cannot draw this configuration: better found before the first asset is read."""
        self.base.latent_shape(self.run.sample.size)
        check_start(Sampler(self.base, None, self.run.drawing).schedule)

    def draw(self, works: Sequence[AssetWork], bucket: tuple[int, int]) -> Iterator[tuple[AssetWork, PlannedStyling, Image.Image]]:
        """The missing pictures of assets of one bucket (height, width), adapter by adapter. What is not finite ends its asset."""
        with torch.inference_mode():
            starts = self._find_starts(works, bucket)
        wanted = [(work, one) for work in works for one in work.missing]
        for adapter in dict.fromkeys(one.adapter.fingerprint if one.adapter else "" for _, one in wanted):
            chosen = [(work, one) for work, one in wanted if (one.adapter.fingerprint if one.adapter else "") == adapter]
            yield from self._draw_together(chosen, starts, bucket)

    def _draw_together(
        self, chosen: Wanted, starts: Mapping[Trajectory, Tensor], bucket: tuple[int, int]
    ) -> Iterator[tuple[AssetWork, PlannedStyling, Image.Image]]:
        requests = [work.request(one, self.run.entry.seed) for work, one in chosen]
        with self._attached(chosen[0][1].adapter) as adapters:
            sampler = Sampler(self.base, adapters, self.run.drawing, size=bucket)
            latents = sampler.continue_latents(requests, starts)
        self.rows_computed += sampler.rows_computed
        finite = torch.isfinite(latents).flatten(1).all(dim=1).tolist()
        for (work, _), well in zip(chosen, finite, strict=True):
            if not well:
                work.error = DivergedError("latents stopped being finite numbers; try fewer refinements or a smaller strength")
        kept = [index for index, (work, _) in enumerate(chosen) if work.error is None]
        if kept:
            for index, picture in zip(kept, self.base.decode_latents(latents[kept]), strict=True):
                yield (*chosen[index], picture)

    @contextmanager
    def _attached(self, adapter: ChosenAdapter | None) -> Iterator[DualAdapters | None]:
        with nullcontext() if adapter is None else style_attached(self.base, self._read_adapter(adapter)) as adapters:
            yield adapters

    def _read_adapter(self, adapter: ChosenAdapter) -> Matrices:
        """The style matrices of an adapter, read once; MissingAdapterError where the store lost it."""
        if adapter.fingerprint not in self._adapters:
            record = self.store.read_marker("adapter", adapter.fingerprint, AdapterRecord)
            if record is None:
                raise MissingAdapterError(f"the adapter of {adapter.label} is no longer in the store; `pairlora run` trains it again")
            self._adapters[adapter.fingerprint] = read_adapter(self.store, record, Role.STYLE).matrices
        return self._adapters[adapter.fingerprint]

    # What drawing starts from

    def _find_starts(self, works: Sequence[AssetWork], bucket: tuple[int, int]) -> dict[Trajectory, Tensor]:
        """Latents at the first guided step, by prefix: noised, or inverted and kept in the store."""
        requests = {work.origin: (work, ImageRequest(work.job.asset.prompt, self.run.entry.seed, origin=work.origin)) for work in works}
        if self.run.entry.way == "noise":
            return self._add_noise(list(requests.values()), bucket)
        found = self._stored_inversions({origin: request for origin, (_, request) in requests.items()})
        missing = [(work, request) for work, request in requests.values() if request.prefix not in found]
        return found | self._invert(missing, bucket) if missing else found

    def _encode(self, works: Sequence[AssetWork]) -> Tensor:
        mean, _ = self.base.encode_pictures([work.picture for work in works])
        return mean

    def _add_noise(self, asked: list[tuple[AssetWork, ImageRequest]], bucket: tuple[int, int]) -> dict[Trajectory, Tensor]:
        sampler = Sampler(self.base, None, self.run.drawing, size=bucket)
        noise = initial_noise(self.run.entry.seed, self.base.latent_shape(bucket))
        return add_starting_noise(sampler, [request for _, request in asked], self._encode([work for work, _ in asked]), noise)

    def _invert(self, asked: list[tuple[AssetWork, ImageRequest]], bucket: tuple[int, int]) -> dict[Trajectory, Tensor]:
        sampler = Sampler(self.base, None, self.run.drawing, size=bucket)
        clean = self._encode([work for work, _ in asked])
        inverted = invert(sampler, [request for _, request in asked], clean, self.run.entry.refinements)
        self.rows_computed += sampler.rows_computed
        for work, request in asked:
            self._store_inversion(work, inverted[request.prefix])
        return inverted

    def _store_inversion(self, work: AssetWork, latents: Tensor) -> None:
        stored = self.store.put_inversion(encode_latents(latents))
        record = InversionRecord(
            inversion_id=work.origin,
            image_sha256=work.job.image_sha256,
            prompt=work.job.asset.prompt,
            profile=describe_way(self.run),
            url=stored.key,
            sha256=stored.sha256,
            bytes=stored.bytes,
        )
        self.store.mark_done("inversion", work.origin, record)

    def _stored_inversions(self, asked: Mapping[str, ImageRequest]) -> dict[Trajectory, Tensor]:
        found = {}
        for origin, record in self.store.read_markers("inversion", asked, InversionRecord).items():
            try:
                latents = decode_latents(self.store.read_payload(record.url, record.sha256, record.bytes))
            except CorruptObjectError as error:
                log.warning("%s; inverting again", error)
                self.store.drop_marker("inversion", origin)
                continue
            found[asked[origin].prefix] = latents.to(self.base.device)
        return found
