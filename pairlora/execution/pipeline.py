"""The work of one shard: train what the store lacks, draw what it lacks, score what it lacks; one outcome a pair.

A pair that fails becomes an outcome with the error's name and harms no other. What has a marker in the store is done.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import torch
from PIL import Image

from pairlora.adapters.dual import DualAdapters, Role
from pairlora.adapters.files import Matrices
from pairlora.adapters.masters import read_adapter, store_master
from pairlora.adapters.stacking import styles_attached
from pairlora.bases.interface import Base
from pairlora.config import RunConfig, TrainConfig
from pairlora.errors import (
    CorruptObjectError,
    DivergedError,
    ForgottenPictureError,
    MissingAdapterError,
    PairloraError,
    StoppedError,
    StoreError,
)
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.attempts import Attempt
from pairlora.execution.drawing import Drawing
from pairlora.execution.finished import identify_pair
from pairlora.execution.pair_scoring import PairScoring
from pairlora.execution.pair_work import PairWork, read_planned
from pairlora.execution.planning import cut, plan_images
from pairlora.execution.progress import Listener, ProgressEvent, ignore
from pairlora.execution.shard_log import naming_pairs
from pairlora.identity import identify_image
from pairlora.images import fit_pair
from pairlora.records import AdapterRecord, FinishedPair, Job, Outcome, PlannedImage, Shard
from pairlora.sampling.plain_lora import scale_style
from pairlora.store.checkpoints import Checkpoints
from pairlora.store.run_store import RunStore, StoredObject
from pairlora.training.memory import choose_pack_size
from pairlora.training.packs import TrainedPair, open_pack, train_pack

log = logging.getLogger(__name__)
LOWER_RATE = 0.1
"""What a training that diverged is tried with once more, as a share of its learning rate."""


class ShardPipeline:
    """Does shards with one base, one store and one scorer."""

    def __init__(self, run: RunConfig, run_id: str, base: Base, store: RunStore, scorer: Scorer, listener: Listener = ignore):
        self.run = run
        self.run_id = run_id
        self.base = base
        self.store = store
        self.listener = listener
        self._bases: dict[str, StoredObject] = {}
        self.drawing = Drawing(run, base, store, listener)
        self.scoring = PairScoring(run, base, store, scorer, self.drawing.read_image)

    def customize_shard(self, shard: Shard, attempt: str = "1") -> list[Outcome]:
        """Train, draw and score the pairs of a shard; what the store holds is not done again. `attempt` names this try."""
        tried = Attempt(self.store, self.run_id, shard, attempt, str(self.base.device))
        with tried.recorded():
            self._customize_packs(shard, tried)
        return tried.outcomes

    def _customize_packs(self, shard: Shard, attempt: Attempt) -> None:
        for size in (self.run.sample.size, *(job.train["resolution"] for job in shard.jobs)):
            self.base.latent_shape(size)  # a size that the base cannot draw is better found before hours of training
        _ = self.drawing.schedule  # and so is a scheduler
        settled = 0
        for pack in shard.packs:
            works = [PairWork(job) for job in pack.jobs]
            self._load_pictures(works)
            self._train(works, shard.name)
            for work in works:
                if work.error is None:
                    self._draw_and_score(work, shard.name)
            outcomes = [work.conclude(str(self.base.device)) for work in works]
            attempt.keep([one for work in works for one in work.given_up])
            attempt.settle(outcomes, [reference for work in works if work.error is None for reference in work.references])
            settled += len(outcomes)
            self.listener(ProgressEvent("pairs", settled, len(shard.jobs), "pairs", shard.name))

    def _load_pictures(self, works: Sequence[PairWork]) -> None:
        tombstones = self.store.list_tombstones()
        for work in works:
            with work.isolated("train"):
                self._refuse_forgotten(work.job, tombstones)
                pair, size = work.job.pair, work.job.train["resolution"]
                content = read_planned(pair.content, work.job.content_sha256, self.run.pictures)
                style = read_planned(pair.style, work.job.style_sha256, self.run.pictures)
                work.content, work.style = fit_pair(content, style, size)

    def _refuse_forgotten(self, job: Job, tombstones: set[str]) -> None:
        """Stop a pair whose picture was forgotten after the run was planned."""
        if forgotten := [role for role, sha256 in job.pictures if sha256 in tombstones]:
            raise ForgottenPictureError(f"{forgotten[0]}: the picture was forgotten; take the row out of the manifest")

    # Training

    def _train(self, works: Sequence[PairWork], shard: str) -> None:
        """Find adapters in the store, and train the others in one pack; pairs that share a training train once."""
        fresh: dict[str, list[PairWork]] = {}
        for work in works:
            if work.error is not None:
                continue
            with work.isolated("train"):
                if self._find_adapter(work):
                    continue
                if not self.run.execution.train_missing:
                    raise MissingAdapterError("the store has no whole adapter of this training; `pairlora run` with the manifest makes it")
                fresh.setdefault(work.job.fingerprint, []).append(work)
        if not fresh:
            return
        leaders = [group[0] for group in fresh.values()]
        started = time.monotonic()
        checkpoints = Checkpoints(self.store, self.run.execution.checkpoint_seconds)
        with naming_pairs(work.job.pair.pair_id for work in leaders):
            results = self._train_leaders(leaders, shard, checkpoints)
        share = (time.monotonic() - started) / len(leaders)
        for group, result in zip(fresh.values(), results, strict=True):
            group[0].seconds["train"] += share
            for work in group:
                self._keep_adapter(work, result, share)
            if any(work.error is None for work in group):
                checkpoints.drop(group[0].job.fingerprint)

    def _train_leaders(self, leaders: Sequence[PairWork], shard: str, checkpoints: Checkpoints) -> list[TrainedPair]:
        """One result a pair, in packs of the size that the configuration or the device's memory allows."""
        train = TrainConfig.model_validate(leaders[0].job.train)
        packs = cut(leaders, self._choose_pack_size(leaders))
        results = [result for pack in packs for result in self._train_pack(pack, train, shard, checkpoints)]
        if diverged := [index for index, result in enumerate(results) if isinstance(result.error, DivergedError)]:
            again = self._train_again([leaders[index] for index in diverged], [results[index] for index in diverged], train, shard)
            for index, result in zip(diverged, again, strict=True):
                results[index] = result
        return results

    def _train_again(
        self, leaders: Sequence[PairWork], diverged: Sequence[TrainedPair], train: TrainConfig, shard: str
    ) -> list[TrainedPair]:
        """Train pairs that diverged once more, from the beginning and at a lower rate.

        It leaves no checkpoints: a run that is resumed would take them for those of the rate that was asked for.
        """
        lower = train.model_copy(update={"learning_rate": LOWER_RATE * train.learning_rate})
        for work, result in zip(leaders, diverged, strict=True):
            log.warning("%s: %s; training again at %g", work.job.pair.pair_id, result.error, lower.learning_rate)
            work.begin_again(result.error or DivergedError("diverged"), str(self.base.device))
            self.store.drop_checkpoint(work.job.fingerprint)
        results = self._train_pack(leaders, lower, shard, None)
        return [replace(result, lowered_rate=lower.learning_rate) for result in results]

    def _choose_pack_size(self, leaders: Sequence[PairWork]) -> int:
        if self.run.execution.pack_size != "auto":
            return len(leaders)
        train = TrainConfig.model_validate(leaders[0].job.train)
        pairs = [work.describe_training() for work in leaders]

        def take_step(count: int) -> None:
            with open_pack(self.base, pairs[:count], train, recompute=self.run.execution.gradient_checkpointing) as training:
                training.take_step(train.steps - 1)  # of the second phase, which needs more

        return choose_pack_size(self.base.device, train.draws, len(leaders), take_step)

    def _train_pack(
        self, leaders: Sequence[PairWork], train: TrainConfig, shard: str, checkpoints: Checkpoints | None
    ) -> list[TrainedPair]:
        """One result a pair. Out of memory halves the pack; any other error fails the pack's pairs alike.

        A store that fails and a run that ends are no fault of the pairs.
        """

        def tell(event: ProgressEvent) -> None:
            self.listener(ProgressEvent(event.phase, event.done, event.total, event.unit, shard, event.facts))

        pairs = [work.describe_training() for work in leaders]
        recompute = self.run.execution.gradient_checkpointing
        try:
            return train_pack(self.base, pairs, train, tell, checkpoints=checkpoints, recompute=recompute)
        except torch.OutOfMemoryError as error:
            if len(leaders) == 1:
                return [TrainedPair(basis_digest="", error=error.with_traceback(None))]
        except (StoreError, StoppedError):
            raise
        except Exception as error:
            if not isinstance(error, PairloraError):
                log.exception("%s: unexpected error in training", shard)
            return [TrainedPair(basis_digest="", error=error) for _ in leaders]
        # past the handler: an error holds the frames that it came through, and they hold the tensors of the pack
        log.warning("%s: out of memory with %d pairs in a pack; trying halves", shard, len(leaders))
        torch.cuda.empty_cache()
        half = len(leaders) // 2
        return [one for part in (leaders[:half], leaders[half:]) for one in self._train_pack(part, train, shard, checkpoints)]

    def _keep_adapter(self, work: PairWork, result: TrainedPair, seconds: float) -> None:
        with work.isolated("train"):
            if result.error is not None:
                raise result.error
            work.adapter, work.trained = result.matrices[Role.STYLE], True
            work.stored = self._store_adapter(work.job, result, seconds)

    def _store_adapter(self, job: Job, trained: TrainedPair, seconds: float) -> AdapterRecord | None:
        """Store and mark an adapter; null where another run was quicker, whose marker then counts."""
        facts = {role: self._describe_file(job, trained, role) for role in Role}
        fields = {
            "fingerprint": job.fingerprint,
            **store_master(self.store, job.fingerprint, trained.matrices, facts, self.base.denoiser_name, self._bases),
            "basis_digest": trained.basis_digest,
            "train": job.train,
            "base": self.base.name,
            "base_digest": self.base.digest,
            "losses": tuple(trained.losses),
            "seconds": seconds,
            "device": str(self.base.device),
            "trained_at": datetime.now(UTC),
            "made_for": self._name_origin(job),
            "pictures": (job.content_sha256, job.style_sha256),
            "lowered_rate": trained.lowered_rate,
        }
        record = AdapterRecord.model_validate(fields)
        is_ours = self.store.mark_done("adapter", job.fingerprint, record)
        log.info("trained in %.1f s", seconds)
        return record if is_ours else None

    def _describe_file(self, job: Job, trained: TrainedPair, role: Role) -> dict[str, str]:
        """What an adapter's file says of its training, and nothing of the run."""
        return {
            "base": self.base.name,
            "basis_digest": trained.basis_digest,
            "basis_seed": str(job.train["basis_seed"]),
            "blocks": str(self.base.denoiser.config.get("layers_per_block", "")),
            "content_prompt": job.pair.training_prompt,
            "family": self.base.family,
            "fingerprint": job.fingerprint,
            "rank": str(job.train[f"{role}_rank"]),
            "role": str(role),
            "row_offset": str(job.train["content_rank"] if role is Role.STYLE else 0),
            "style_prompt": job.pair.style_prompt(job.pair.training_prompt),
        }

    def _name_origin(self, job: Job) -> str:
        return f"{self.run_id}/{job.pair.pair_id}"

    def _find_adapter(self, work: PairWork) -> bool:
        """Take the style adapter of a training that is in the store and whole; a damaged one is forgotten and made again."""
        record = self.store.read_marker("adapter", work.job.fingerprint, AdapterRecord)
        if record is None:
            return False
        try:
            work.adapter, work.stored = read_adapter(self.store, record, Role.STYLE).matrices, record
        except CorruptObjectError as error:
            log.warning("%s; training again", error)
            self.store.drop_marker("adapter", work.job.fingerprint)
            return False
        return True

    # Drawing and scoring

    def _draw_and_score(self, work: PairWork, shard: str) -> None:
        pictures: dict[str, Image.Image] = {}
        planned = {self._image_id(work.job, one): one for one in plan_images(work.job.pair, self.run)}
        with work.isolated("draw"):
            records = self.drawing.find_images(planned)
            missing = {image_id: one for image_id, one in planned.items() if image_id not in records}
            work.images_reused = len(records)
            if missing:
                pictures = self._draw(work, missing, shard)
                work.images_drawn = len(missing)
                log.info("drew %d pictures, %d were in the store", len(missing), len(records))
        if work.error is None:
            with work.isolated("score"):
                if scored := self.scoring.score(work, planned, records, pictures):
                    self.listener(ProgressEvent("score", scored, scored, "images", shard))
                self.scoring.measure_adapter(work, planned, records, pictures)
                self._mark_finished(work)

    def _image_id(self, job: Job, planned: PlannedImage) -> str:
        return identify_image(
            planned, self.run.sample, fingerprint=job.fingerprint, base_digest=self.base.digest, dtype=self.run.base.dtype
        )

    def _draw(self, work: PairWork, missing: dict[str, PlannedImage], shard: str) -> dict[str, Image.Image]:
        """Draw and store what is missing: pictures with style guidance, and those of the plain LoRA weight by weight."""
        self._warn_of_long_prompts(work)
        pictures: dict[str, Image.Image] = {}
        for weight in dict.fromkeys(one.lora_weight for one in missing.values()):
            chosen = {image_id: one for image_id, one in missing.items() if one.lora_weight == weight}
            style = work.adapter if weight is None else scale_style(work.adapter, weight)
            draw = self.drawing.draw_images if weight is None else self.drawing.draw_plain_images
            with style_attached(self.base, style) as adapters:
                pictures |= draw(adapters, work.job.fingerprint, chosen, shard, made_for=self._name_origin(work.job))
        return pictures

    def _warn_of_long_prompts(self, work: PairWork) -> None:
        for prompt in work.job.pair.prompts:
            styled = work.job.pair.style_prompt(prompt)
            if (count := self.base.count_tokens(styled)) > self.base.token_limit():
                log.warning("%s: '%s' has %d tokens, the base reads %d", work.job.pair.pair_id, styled, count, self.base.token_limit())

    def _mark_finished(self, work: PairWork) -> None:
        """Let a run that asks for the same find the whole pair by one marker."""
        adapter = work.stored or self.store.read_marker("adapter", work.job.fingerprint, AdapterRecord)
        sizes = {} if adapter is None else {adapter.style_url: adapter.style_bytes}
        if adapter is not None and adapter.basis_url:
            sizes[adapter.basis_url] = adapter.basis_bytes
        sizes |= self.drawing.list_sizes(work.references)
        finished = FinishedPair(fingerprint=work.job.fingerprint, references=tuple(work.references), sizes=sizes, spill=work.spill)
        self.store.mark_done("pair", identify_pair(work.job, self.run, self.base.digest), finished)


@contextmanager
def style_attached(base: Base, style: Matrices) -> Iterator[DualAdapters]:
    """A base with one style adapter in slot 0, on the A matrices that the adapter brings along."""
    with styles_attached(base.denoiser, [style]) as adapters:
        yield adapters
