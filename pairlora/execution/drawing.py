"""The pictures of a pair in the store: which are there, and drawing the others from latents that all pairs share.

Pictures of strength 0 depend on no adapter and are found by every pair that asks for the same prompt and seed; so are the
latents at the onset, which every style starts from.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from io import BytesIO
from typing import Literal

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pairlora.adapters.dual import DualAdapters
from pairlora.bases.interface import Base
from pairlora.config import RunConfig
from pairlora.errors import CorruptObjectError
from pairlora.execution.progress import Listener, ProgressEvent
from pairlora.identity import describe_profile, identify_prefix
from pairlora.images import encode_png
from pairlora.provenance import Origin, describe_picture
from pairlora.records import ImageRecord, ImageReference, PlannedImage, PrefixRecord
from pairlora.sampling.plain_lora import make_plain_sampler
from pairlora.sampling.sampler import ImageRequest, Sampler, Trajectory
from pairlora.sampling.schedules import Schedule
from pairlora.sampling.trajectories import request_image
from pairlora.store.run_store import RunStore, side_by_side

log = logging.getLogger(__name__)
MOST_SHARED = 64
"""Unstyled pictures that are kept in memory for the pairs of a shard: 200 MB of 1,024 pixels a side."""


class Drawing:
    """Draws what the store lacks of a run's pictures."""

    def __init__(self, run: RunConfig, base: Base, store: RunStore, listener: Listener):
        self.run = run
        self.base = base
        self.store = store
        self.listener = listener
        self.sample = run.sample  # its rows of a forward are fewer once a device had too little memory
        self._known: dict[str, ImageRecord] = {}
        self._shared: dict[str, Image.Image] = {}

    @cached_property
    def schedule(self) -> Schedule:
        """The steps of all drawings. BaseModelError where the base cannot draw by the configured scheduler."""
        return Schedule(self.base, self.run.sample)

    @cached_property
    def _origin(self) -> Origin:
        """What all pictures of the run have in common."""
        sample = self.run.sample
        scheduler = type(self.base.make_scheduler(sample.scheduler, sample.steps, sample.size)).__name__
        return Origin(base=self.run.base.name, base_digest=self.base.digest, scheduler=scheduler, steps=sample.steps, size=sample.size)

    def find_images(self, planned: Mapping[str, PlannedImage]) -> dict[str, ImageRecord]:
        """The records of planned pictures that are in the store and whole, by image_id; damaged ones are forgotten.

        What was found once, as unstyled pictures are by many pairs, is not looked for again: this object lives for a shard.
        """
        known = {image_id: self._known[image_id] for image_id in planned if image_id in self._known}
        found = self._read_records({image_id: one.is_unstyled for image_id, one in planned.items() if image_id not in known})
        whole = self.store.find_whole({record.url: record.bytes for record in found.values()})
        for record in found.values():
            if record.url not in whole:
                log.warning("%s is missing or damaged; drawing it again", record.url)
                self.forget_image(record)
        self._known |= {image_id: record for image_id, record in found.items() if record.url in whole}
        return {image_id: self._known[image_id] for image_id in planned if image_id in self._known}

    def _read_records(self, is_unstyled: Mapping[str, bool]) -> dict[str, ImageRecord]:
        """The markers of pictures, by image_id."""
        baselines = [image_id for image_id, unstyled in is_unstyled.items() if unstyled]
        styled = [image_id for image_id, unstyled in is_unstyled.items() if not unstyled]
        return self.store.read_markers("baseline", baselines, ImageRecord) | self.store.read_markers("image", styled, ImageRecord)

    def list_sizes(self, references: Sequence[ImageReference]) -> dict[str, int]:
        """Bytes of the pictures that these references show, by key."""
        unknown = {one.image_id: one.is_unstyled for one in references if one.image_id not in self._known}
        records = self._known | self._read_records(unknown)
        return {record.url: record.bytes for one in references if (record := records.get(one.image_id))}

    def forget_image(self, record: ImageRecord) -> None:
        """Let the next run draw a picture again."""
        self._known.pop(record.image_id, None)
        self.store.drop_marker("baseline" if record.is_unstyled else "image", record.image_id)

    def read_image(self, record: ImageRecord) -> Image.Image:
        """A picture of the store; a damaged one is forgotten, so that the next run draws it again.

        Unstyled ones stay in memory, since the next pairs of a shard are compared with them too.
        """
        if record.sha256 in self._shared:
            return self._shared[record.sha256]
        try:
            data = self.store.read_payload(record.url, record.sha256, record.bytes)
        except CorruptObjectError:
            self.forget_image(record)
            raise
        picture = Image.open(BytesIO(data), formats=["PNG"]).convert("RGB")
        if record.is_unstyled and len(self._shared) < MOST_SHARED:
            self._shared[record.sha256] = picture
        return picture

    def draw_images(
        self, adapters: DualAdapters, fingerprint: str, missing: dict[str, PlannedImage], shard: str, *, made_for: str = ""
    ) -> dict[str, Image.Image]:
        """Draw and store pictures with style guidance by the adapter in slot 0, by image_id; they start from latents of the store.

        `made_for` is kept with each picture: the run and the pair that it is drawn for.
        """
        sampler = Sampler(self.base, adapters, self.sample, schedule=self.schedule)
        return self._draw_batches(sampler, fingerprint, missing, shard, made_for, from_store=True)

    def draw_plain_images(
        self, adapters: DualAdapters, fingerprint: str, missing: dict[str, PlannedImage], shard: str, *, made_for: str = ""
    ) -> dict[str, Image.Image]:
        """Draw and store pictures of one weight with the adapter in slot 0 as a plain LoRA, already scaled, by image_id."""
        sampler = make_plain_sampler(self.base, adapters, self.sample, self.schedule)
        return self._draw_batches(sampler, fingerprint, missing, shard, made_for, from_store=False)

    def _draw_batches(
        self, sampler: Sampler, fingerprint: str, missing: dict[str, PlannedImage], shard: str, made_for: str, *, from_store: bool
    ) -> dict[str, Image.Image]:
        """In batches of whole (prompt, seed) groups, whose strengths share work; what is stored survives a kill.

        Latents of the store are the base's own: what an adapter shapes from the first step on must not start from them.
        """
        pictures: dict[str, Image.Image] = {}
        started = time.monotonic()
        for batch in batch_images(missing, 2 * self.run.sample.batch_rows):
            drawn = self._draw_batch(sampler, [request_image(one) for one in batch.values()], from_store=from_store)
            self._store_batch(batch, drawn, fingerprint, made_for)
            pictures |= zip(batch, drawn, strict=True)
            rate = len(pictures) / max(1e-9, time.monotonic() - started)
            self.listener(ProgressEvent("draw", len(pictures), len(missing), "images", shard, {"images_per_second": rate}))
        return pictures

    def _draw_batch(self, sampler: Sampler, requests: list[ImageRequest], *, from_store: bool) -> list[Image.Image]:
        """Out of memory halves the rows of a forward, down to one, for this batch and all after it."""
        while True:
            try:
                return sampler.draw(requests, prefixes=self._provide_prefixes(sampler, requests) if from_store else None)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if (rows := self.sample.batch_rows) == 1:
                    raise
                log.warning("out of memory with %d rows in a forward; drawing with %d", rows, rows // 2)
                self.sample = sampler.sample = self.sample.model_copy(update={"batch_rows": rows // 2})

    def _store_batch(self, batch: Mapping[str, PlannedImage], drawn: Sequence[Image.Image], fingerprint: str, made_for: str) -> None:
        def store(item: tuple[str, PlannedImage, Image.Image]) -> None:
            image_id, planned, picture = item
            self.store_image(image_id, planned, fingerprint, picture, made_for)

        side_by_side(store, list(zip(batch, batch.values(), drawn, strict=True)))

    def store_image(self, image_id: str, planned: PlannedImage, fingerprint: str, picture: Image.Image, made_for: str = "") -> None:
        """Store a drawn picture, whose PNG says how it was drawn, and mark it."""
        kind: Literal["baseline", "image"] = "baseline" if planned.is_unstyled else "image"
        drawn = ImageRecord(
            image_id=image_id,
            fingerprint="" if planned.is_unstyled else fingerprint,
            prompt=planned.prompt,
            style_prompt="" if planned.is_unstyled else planned.style_prompt,
            seed=planned.seed,
            strength=planned.strength,
            lora_weight=planned.lora_weight,
            guidance_scale=self.run.sample.guidance_scale,
            profile=describe_profile(self.run.sample),
            url="",
            sha256="",
            bytes=0,
            made_for=made_for,
        )
        data = encode_png(picture, describe_picture(drawn, self._origin))
        stored = self.store.put_baseline(data) if planned.is_unstyled else self.store.put_image(data)
        record = drawn.model_copy(update={"url": stored.key, "sha256": stored.sha256, "bytes": stored.bytes})
        if self.store.mark_done(kind, image_id, record):
            self._known[image_id] = record

    # Latents at the onset

    def _provide_prefixes(self, sampler: Sampler, requests: list[ImageRequest]) -> dict[Trajectory, Tensor]:
        """Latents at the onset of all requests: those of the store, and the others drawn and stored; none where no drawing can be cut."""
        if not sampler.schedule.split:
            return {}
        wanted = {request.prefix: self._prefix_id(request.prefix) for request in requests}
        found = self._stored_prefixes(wanted)
        fresh = sampler.draw_prefixes([start for start in wanted if start not in found])
        for start, latents in fresh.items():
            self._store_prefix(wanted[start], start, latents)
        return found | fresh

    def _prefix_id(self, start: Trajectory) -> str:
        return identify_prefix(start.prompt, start.seed, self.run.sample, base_digest=self.base.digest, dtype=self.run.base.dtype)

    def _stored_prefixes(self, wanted: Mapping[Trajectory, str]) -> dict[Trajectory, Tensor]:
        records = self.store.read_markers("prefix", wanted.values(), PrefixRecord)
        found = {}
        for start, prefix_id in wanted.items():
            if (record := records.get(prefix_id)) is None:
                continue
            try:
                found[start] = decode_latents(self.store.read_payload(record.url, record.sha256, record.bytes)).to(self.base.device)
            except CorruptObjectError as error:
                log.warning("%s; drawing from the noise", error)
                self.store.drop_marker("prefix", prefix_id)
        return found

    def _store_prefix(self, prefix_id: str, start: Trajectory, latents: Tensor) -> None:
        stored = self.store.put_prefix(encode_latents(latents))
        record = PrefixRecord(
            prefix_id=prefix_id,
            prompt=start.prompt,
            seed=start.seed,
            guidance_scale=self.run.sample.guidance_scale,
            profile=describe_profile(self.run.sample),
            url=stored.key,
            sha256=stored.sha256,
            bytes=stored.bytes,
        )
        self.store.mark_done("prefix", prefix_id, record)


def encode_latents(latents: Tensor) -> bytes:
    """A safetensors file of one latent (channels, height, width) in its own dtype: every bit comes back."""
    return save({"latents": latents.detach().cpu().contiguous()})


def decode_latents(data: bytes) -> Tensor:
    """The latent of a file that `encode_latents` wrote; else CorruptObjectError."""
    try:
        return load(data)["latents"]
    except (SafetensorError, KeyError) as error:
        raise CorruptObjectError(f"not a file of latents: {error}") from error


def batch_images(planned: dict[str, PlannedImage], size: int) -> list[dict[str, PlannedImage]]:
    """Pictures in batches of about `size`, those of one prompt and seed together."""
    groups: dict[tuple[str, int], dict[str, PlannedImage]] = {}
    for image_id, one in planned.items():
        groups.setdefault((one.prompt, one.seed), {})[image_id] = one
    batches: list[dict[str, PlannedImage]] = [{}]
    for group in groups.values():
        if batches[-1] and len(batches[-1]) + len(group) > size:
            batches.append({})
        batches[-1] |= group
    return batches
