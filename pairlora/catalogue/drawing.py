"""Assets drawn in the styles of adapters: from the finished picture to latents, and from there by style guidance."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from PIL import Image
from torch import Tensor

from pairlora.adapters.dual import DualAdapters, Role
from pairlora.adapters.files import Matrices
from pairlora.adapters.masters import read_adapter
from pairlora.bases.interface import Base, Control
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.foreign import read_foreign
from pairlora.catalogue.records import ChosenAdapter
from pairlora.catalogue.starts import AssetStarts
from pairlora.catalogue.work import AssetWork, PlannedStyling
from pairlora.errors import DivergedError, MissingAdapterError
from pairlora.execution.pipeline import style_attached
from pairlora.records import AdapterRecord
from pairlora.sampling.sampler import Sampler
from pairlora.sampling.trajectories import Trajectory
from pairlora.store.run_store import RunStore

log = logging.getLogger(__name__)
Wanted = list[tuple[AssetWork, PlannedStyling]]


class CatalogueDrawing:
    """Draws assets of one size together."""

    def __init__(self, run: CatalogueConfig, base: Base, store: RunStore):
        self.run = run
        self.base = base
        self.store = store
        self.sample = run.drawing  # its rows of a forward are fewer once a device had too little memory
        self.starts = AssetStarts(run, base, store)
        self._rows_computed = 0
        self._adapters: dict[str, Matrices] = {}

    @property
    def rows_computed(self) -> int:
        """Rows of all forwards so far."""
        return self._rows_computed + self.starts.rows_computed

    def check(self, adapters: Sequence[ChosenAdapter]) -> None:
        """BaseModelError where the base cannot draw this configuration, AdapterFileError where a file is no adapter of it.

        Better found before the first asset is read.
        """
        self.base.latent_shape(self.run.sample.size)
        self.starts.check()
        for adapter in (one for one in adapters if one.file):
            self._read_adapter(adapter)

    def halve_rows(self) -> bool:
        """Draw with half the rows of a forward from now on; whether there was more than one."""
        if (rows := self.sample.batch_rows) == 1:
            return False
        log.warning("out of memory with %d rows in a forward; drawing with %d", rows, rows // 2)
        self.sample = self.starts.sample = self.sample.model_copy(update={"batch_rows": rows // 2})
        return True

    def draw(self, works: Sequence[AssetWork], bucket: tuple[int, int]) -> Iterator[tuple[AssetWork, PlannedStyling, Image.Image]]:
        """The missing pictures of assets with pieces of one size (height, width), adapter by adapter. What is not finite ends its asset."""
        with torch.inference_mode():
            pieces = [piece for work in works for piece in work.pieces]
            controls = self.starts.control(pieces)
            starts = self.starts.find(pieces, bucket, controls)
        wanted = [(work, one) for work in works for one in work.missing]
        for adapter in dict.fromkeys(one.adapter.fingerprint if one.adapter else "" for _, one in wanted):
            chosen = [(work, one) for work, one in wanted if (one.adapter.fingerprint if one.adapter else "") == adapter]
            yield from self._draw_together(chosen, starts, controls, bucket)

    def _draw_together(
        self, chosen: Wanted, starts: Mapping[Trajectory, Tensor], controls: Mapping[str, Control], bucket: tuple[int, int]
    ) -> Iterator[tuple[AssetWork, PlannedStyling, Image.Image]]:
        asked = [(index, piece) for index, (work, _) in enumerate(chosen) for piece in work.pieces]
        requests = [piece.request(chosen[index][1], self.run.entry.seed) for index, piece in asked]
        with self._attached(chosen[0][1].adapter) as adapters:
            sampler = Sampler(self.base, adapters, self.sample, size=bucket, controls=controls)
            latents = sampler.continue_latents(requests, starts)
        self._rows_computed += sampler.rows_computed
        finite = torch.isfinite(latents).flatten(1).all(dim=1).tolist()
        for (_, piece), well in zip(asked, finite, strict=True):
            if not well:
                piece.work.error = DivergedError("latents stopped being finite numbers; try fewer refinements or a smaller strength")
        kept = [row for row, (_, piece) in enumerate(asked) if piece.work.error is None]
        decoded = iter(self.base.decode_latents(latents[kept]) if kept else ())
        for work, one in chosen:
            if work.error is None:
                yield work, one, work.canvas.join([next(decoded) for _ in work.pieces])

    @contextmanager
    def _attached(self, adapter: ChosenAdapter | None) -> Iterator[DualAdapters | None]:
        with nullcontext() if adapter is None else style_attached(self.base, self._read_adapter(adapter)) as adapters:
            yield adapters

    def _read_adapter(self, adapter: ChosenAdapter) -> Matrices:
        """The style matrices of an adapter, read once; MissingAdapterError where the store lost it."""
        if adapter.fingerprint not in self._adapters:
            if adapter.file:
                matrices = read_foreign(self.store, adapter, self.base, partial=self.run.partial)
            else:
                matrices = self._read_trained(adapter)
            self._adapters[adapter.fingerprint] = matrices
        return self._adapters[adapter.fingerprint]

    def _read_trained(self, adapter: ChosenAdapter) -> Matrices:
        record = self.store.read_marker("adapter", adapter.fingerprint, AdapterRecord)
        if record is None:
            raise MissingAdapterError(f"the adapter of {adapter.label} is no longer in the store; `pairlora run` trains it again")
        return read_adapter(self.store, record, Role.STYLE).matrices
