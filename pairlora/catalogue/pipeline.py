"""The work of one shard of a catalogue: draw what the store lacks, score what it lacks; one outcome an asset.

An asset that fails becomes an outcome with the error's name and harms no other. What has a marker in the store is done.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from PIL import Image

from pairlora.bases.interface import Base
from pairlora.bases.reconstruction import reconstruct
from pairlora.catalogue.canvases import choose_canvas
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.drawing import CatalogueDrawing
from pairlora.catalogue.files import compose, encode_asset
from pairlora.catalogue.identities import describe_way
from pairlora.catalogue.records import AssetShard, ChosenAdapter, FinishedAsset, StyledRecord, StyledReference
from pairlora.catalogue.scoring import AssetScorer
from pairlora.catalogue.work import AssetWork, PlannedStyling, cut_pieces
from pairlora.errors import CorruptObjectError, PictureError
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.attempts import Attempt
from pairlora.execution.pair_work import isolated_together
from pairlora.execution.progress import Listener, ProgressEvent, ignore
from pairlora.images import Layers, decode_layers, read_layers
from pairlora.records import Outcome
from pairlora.store.run_store import RunStore
from pairlora.store.urls import name_url

log = logging.getLogger(__name__)


class CataloguePipeline:
    """Does shards of assets with one base, one store and one scorer."""

    def __init__(self, run: CatalogueConfig, run_id: str, base: Base, store: RunStore, scorer: Scorer, listener: Listener = ignore):
        self.run = run
        self.run_id = run_id
        self.base = base
        self.store = store
        self.listener = listener
        self.drawing = CatalogueDrawing(run, base, store)
        self.scoring = AssetScorer(run, store, scorer, self.read_styled)

    def stylize_shard(self, shard: AssetShard, attempt: str = "1") -> list[Outcome]:
        """Draw and score the assets of a shard; what the store holds is not done again. `attempt` names this try."""
        tried = Attempt(self.store, self.run_id, shard, attempt, str(self.base.device), StyledReference)
        with tried.recorded():
            self._stylize(shard, tried)
        return tried.outcomes

    def _stylize(self, shard: AssetShard, attempt: Attempt) -> None:
        self.drawing.check(shard.adapters)
        buckets: dict[tuple[int, int], list[AssetWork]] = defaultdict(list)
        settled = 0
        for work in map(AssetWork, shard.jobs):
            with work.isolated("draw"):
                self._open(work, shard.adapters)
            buckets[self._bucket_of(work)].append(work)
        for bucket, works in buckets.items():
            for batch in cut_pieces(works, self.run.batch_assets):
                self._do_batch(batch, bucket, shard.adapters)
                self._settle(batch, attempt)
                settled += len(batch)
                self.listener(ProgressEvent("pairs", settled, len(shard.jobs), "assets", shard.name))

    def _settle(self, batch: Sequence[AssetWork], attempt: Attempt) -> None:
        outcomes = [work.conclude(str(self.base.device)) for work in batch]
        attempt.settle(outcomes, [reference for work in batch if work.error is None for reference in work.references])

    # Reading

    def _open(self, work: AssetWork, adapters: Sequence[ChosenAdapter]) -> None:
        """Read the asset as the base sees it, and find what the store has of it; its own pixels are read again when they are needed."""
        layers, _ = self._read_asset(work)
        width, height = layers.size
        canvas = choose_canvas(width, height, size=self.run.sample.size, multiple=self.base.multiple, tiles=self.run.tiles)
        work.lay_out(layers.flatten(self.run.files.background), canvas, self.run, self.base.digest)
        work.plan(self.run, adapters, self.base.digest)
        work.known = self._find_styled(work)
        work.images_reused = len(work.known)

    def _bucket_of(self, work: AssetWork) -> tuple[int, int]:
        return (0, 0) if work.error is not None else work.canvas.piece

    def _read_asset(self, work: AssetWork) -> tuple[Layers, Image.Image | None]:
        """The asset's file in its parts, and its mask; PictureError where either is no longer what was planned."""
        asset = work.job.asset
        layers = self._read_planned(asset.image, work.job.image_sha256)
        if not asset.mask:
            return layers, None
        mask = self._read_planned(asset.mask, work.job.mask_sha256)
        if mask.size != layers.size:
            sizes = f"the mask has {mask.size[0]}x{mask.size[1]} pixels, the asset {layers.size[0]}x{layers.size[1]}"
            raise PictureError(f"{sizes}; export the mask at the asset's size")
        return layers, mask.flatten("#000000").convert("L")

    def _read_planned(self, url: str, sha256: str) -> Layers:
        layers, found = read_layers(url, self.run.pictures)
        if found != sha256:
            raise PictureError(f"{name_url(url)} was changed after the run was planned; run again to plan with the new picture")
        return layers

    def _find_styled(self, work: AssetWork) -> dict[str, StyledRecord]:
        """The records of planned pictures that are in the store and whole; damaged ones are forgotten."""
        found = self.store.read_markers("styled", (one.styled_id for one in work.planned), StyledRecord)
        whole = self.store.find_whole({record.url: record.bytes for record in found.values()})
        for styled_id, record in found.items():
            if record.url not in whole:
                log.warning("%s is missing or damaged; drawing it again", record.url)
                self.store.drop_marker("styled", styled_id)
        return {styled_id: record for styled_id, record in found.items() if record.url in whole}

    # Drawing and scoring

    def _do_batch(self, batch: Sequence[AssetWork], bucket: tuple[int, int], adapters: Sequence[ChosenAdapter]) -> None:
        works = [work for work in batch if work.error is None]
        if undrawn := [work for work in works if work.missing]:
            self._draw(undrawn, bucket)
        for work in works:
            if work.error is None:
                with work.isolated("score"):
                    self._score(work, adapters)

    def _draw(self, works: Sequence[AssetWork], bucket: tuple[int, int]) -> None:
        """Draw assets together and write their files. Out of memory halves them, and for one asset alone the rows of a forward."""
        drawn: dict[int, list[tuple[PlannedStyling, Image.Image]]] = defaultdict(list)
        parts: Sequence[Sequence[AssetWork]] = ()
        with isolated_together(works, "draw"):
            try:
                for work, one, picture in self.drawing.draw(works, bucket):
                    drawn[work.job.row].append((one, picture))
            except torch.OutOfMemoryError:
                if not (parts := self._make_room(works)):
                    raise
        for part in parts:
            self._draw(part, bucket)
        for work in () if parts else works:
            if work.error is None:
                with work.isolated("draw"):
                    self._write(work, drawn[work.job.row])

    def _make_room(self, works: Sequence[AssetWork]) -> Sequence[Sequence[AssetWork]]:
        """The assets in parts that take less memory; none where there is nothing left to part."""
        torch.cuda.empty_cache()
        if len(works) > 1:
            half = len(works) // 2
            log.warning("out of memory with %d assets drawn together; drawing %d", len(works), half)
            return works[:half], works[half:]
        return (works,) if self.drawing.halve_rows() else ()

    def _write(self, work: AssetWork, drawn: Sequence[tuple[PlannedStyling, Image.Image]]) -> None:
        """Store pictures as files like the asset's, each with its marker."""
        layers, mask = self._read_asset(work)
        for one, picture in drawn:
            facts = self._describe(work, one)
            composed = compose(picture, layers, mask, self.run.files)
            data, suffix = encode_asset(composed, layers, self.run.files, facts, masked=mask is not None)
            stored = self.store.put_styled(data, suffix)
            record = StyledRecord(
                styled_id=one.styled_id,
                fingerprint=one.adapter.fingerprint if one.adapter else "",
                image_sha256=work.job.image_sha256,
                prompt=work.drawn_prompt,
                style_prompt=facts.get("style_prompt", ""),
                strength=one.strength,
                guidance_scale=self.run.drawing.guidance_scale,
                profile=describe_way(self.run),
                width=composed.width,
                height=composed.height,
                url=stored.key,
                sha256=stored.sha256,
                bytes=stored.bytes,
            )
            self.store.mark_done("styled", one.styled_id, record)
            work.known[one.styled_id] = record
            work.images_drawn += 1

    def _describe(self, work: AssetWork, one: PlannedStyling) -> dict[str, str]:
        """What the file says of itself."""
        facts = {"asset": work.job.row_id, "prompt": work.drawn_prompt, "strength": f"{one.strength:g}", "styled_id": one.styled_id}
        facts |= {"way": describe_way(self.run), "base": f"{self.base.name} {self.base.digest[:12]}"}
        if one.adapter is not None:
            facts |= {"adapter": one.adapter.label, "fingerprint": one.adapter.fingerprint}
            facts["style_prompt"] = one.adapter.style_prompt(work.drawn_prompt)
        return facts

    def read_styled(self, work: AssetWork, styled_id: str) -> Image.Image:
        """A stored picture as the base would see it; a damaged one is forgotten, so that the next run draws it again."""
        record = work.known[styled_id]
        try:
            data = self.store.read_payload(record.url, record.sha256, record.bytes)
        except CorruptObjectError:
            self.store.drop_marker("styled", styled_id)
            raise
        layers = decode_layers(data, self.run.pictures, name=record.url)
        return work.canvas.fit(layers.flatten(self.run.files.background))

    def _score(self, work: AssetWork, adapters: Sequence[ChosenAdapter]) -> None:
        """Score each adapter's pictures of the asset, and let a run that asks for the same find the whole asset by one marker."""
        truths = dict(self._read_truths(work, adapters))
        for adapter in adapters:
            work.references += self.scoring.score(work, adapter, truths.get(adapter.label), partial(self._reconstruct, work))
        sizes = {record.url: record.bytes for record in work.known.values()}
        self.store.mark_done("asset", work.job.fingerprint, FinishedAsset(references=tuple(work.references), sizes=sizes))

    def _reconstruct(self, work: AssetWork, picture: Image.Image) -> Image.Image:
        """A picture as the base's autoencoder shows it, in the pieces that the asset is drawn in."""
        canvas = work.canvas
        return canvas.join([reconstruct(self.base, piece) for piece in canvas.cut(canvas.fit(picture))])

    def _read_truths(self, work: AssetWork, adapters: Sequence[ChosenAdapter]) -> Iterator[tuple[str, tuple[str, Image.Image]]]:
        """Digest and picture of each adapter's truth, by label; as the base's autoencoder shows it, so that scores judge the style."""
        truth: Mapping[str, str] = work.job.asset.truth
        for adapter in adapters:
            if (name := next((name for name in adapter.truth_names if name in truth), None)) is None:
                continue
            digest = work.job.truth_sha256[name]
            picture = self._read_planned(truth[name], digest).flatten(self.run.files.background)
            yield adapter.label, (digest, self._reconstruct(work, picture))
