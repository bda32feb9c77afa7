"""How assets get into the sampler: the latents that a drawing goes on from at the first guided step, and what holds it to its edges.

Latents that cost evaluations go through the store: all adapters and strengths start from them, in this run and later.
"""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pairlora.bases.control import load_control
from pairlora.bases.interface import Base, Control
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.edges import find_edges
from pairlora.catalogue.identities import describe_way
from pairlora.catalogue.records import InversionRecord
from pairlora.catalogue.work import Piece
from pairlora.errors import CorruptObjectError
from pairlora.execution.drawing import decode_latents, encode_latents
from pairlora.sampling.inversion import add_starting_noise, check_start, draw_from_noise, invert
from pairlora.sampling.sampler import Sampler, initial_noise
from pairlora.sampling.trajectories import ImageRequest, Trajectory
from pairlora.store.run_store import RunStore

log = logging.getLogger(__name__)
Asked = Sequence[tuple[Piece, ImageRequest]]


class AssetStarts:
    """The latents that assets of a run begin at, by its way in. `rows_computed` counts the rows of all forwards so far."""

    def __init__(self, run: CatalogueConfig, base: Base, store: RunStore):
        self.run = run
        self.base = base
        self.store = store
        self.sample = run.drawing
        self.rows_computed = 0

    def check(self) -> None:
        """BaseModelError where the base cannot begin a drawing as it is configured, or its ControlNet is missing or another base's."""
        check_start(Sampler(self.base, None, self.run.drawing).schedule)
        if (settings := self.run.entry.net) is not None:
            load_control(self.base, settings.name, settings.revision)

    def find(self, pieces: Sequence[Piece], bucket: tuple[int, int], controls: Mapping[str, Control]) -> dict[Trajectory, Tensor]:
        """Latents at the first guided step, by prefix, of pieces of one size (height, width)."""
        asked = [(piece, piece.request_plain(self.run.entry.seed)) for piece in {piece.origin: piece for piece in pieces}.values()]
        sampler = Sampler(self.base, None, self.sample, size=bucket, controls=controls)
        if not self.run.entry.evaluates:
            return self._add_noise(sampler, asked)
        found = self._read({piece.origin: request for piece, request in asked})
        missing = [(piece, request) for piece, request in asked if request.prefix not in found]
        return found | self._make(sampler, missing) if missing else found

    def control(self, pieces: Sequence[Piece]) -> dict[str, Control]:
        """What holds each piece to its edges, by its origin; nothing where the way in takes no ControlNet."""
        if (settings := self.run.entry.net) is None:
            return {}
        hints = self.base.encode_hints([find_edges(piece.picture, settings) for piece in pieces])
        net = load_control(self.base, settings.name, settings.revision)
        return {piece.origin: Control(net, hint[None], settings.scale) for piece, hint in zip(pieces, hints, strict=True)}

    def _add_noise(self, sampler: Sampler, asked: Asked) -> dict[Trajectory, Tensor]:
        noise = torch.stack([self._cut_noise(piece) for piece, _ in asked])
        return add_starting_noise(sampler, [request for _, request in asked], self._encode(asked), noise)

    def _cut_noise(self, piece: Piece) -> Tensor:
        """The noise of a piece (channels, height, width): tiles see the same where they overlap, or they would not meet."""
        canvas, (left, top, _, _) = piece.work.canvas, piece.box
        whole = initial_noise(self.run.entry.seed, self.base.latent_shape((canvas.height, canvas.width)))
        _, height, width = self.base.latent_shape(canvas.piece)
        down, across = top * whole.shape[1] // canvas.height, left * whole.shape[2] // canvas.width
        return whole[:, down : down + height, across : across + width]

    def _encode(self, asked: Asked) -> Tensor:
        mean, _ = self.base.encode_pictures([piece.picture for piece, _ in asked])
        return mean

    def _make(self, sampler: Sampler, asked: Asked) -> dict[Trajectory, Tensor]:
        requests = [request for _, request in asked]
        if self.run.entry.way == "invert":
            made = invert(sampler, requests, self._encode(asked), self.run.entry.refinements)
        else:
            made = draw_from_noise(sampler, requests)
        self.rows_computed += sampler.rows_computed
        for piece, request in asked:
            self._keep(piece, made[request.prefix])
        return made

    def _keep(self, piece: Piece, latents: Tensor) -> None:
        stored = self.store.put_inversion(encode_latents(latents))
        record = InversionRecord(
            inversion_id=piece.origin,
            image_sha256=piece.work.job.image_sha256,
            prompt=piece.prompt,
            profile=describe_way(self.run),
            url=stored.key,
            sha256=stored.sha256,
            bytes=stored.bytes,
        )
        self.store.mark_done("inversion", piece.origin, record)

    def _read(self, asked: Mapping[str, ImageRequest]) -> dict[Trajectory, Tensor]:
        found = {}
        for origin, record in self.store.read_markers("inversion", asked, InversionRecord).items():
            try:
                latents = decode_latents(self.store.read_payload(record.url, record.sha256, record.bytes))
            except CorruptObjectError as error:
                log.warning("%s; making them again", error)
                self.store.drop_marker("inversion", origin)
                continue
            found[asked[origin].prefix] = latents.to(self.base.device)
        return found
