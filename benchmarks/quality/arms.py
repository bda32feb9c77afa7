"""An arm on a manifest: adapters, pictures and scores through the same store and pipeline as any run, whatever trained them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from benchmarks.quality.plain_lora import make_silent, train_free
from benchmarks.quality.protocol import PUBLISHED, RELATIVE_STRENGTHS, Arm, name_groups
from benchmarks.quality.transfer import restyle
from pairlora.bases.interface import Base
from pairlora.config import RunConfig, TrainConfig
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.pair_work import PairWork
from pairlora.execution.pipeline import ShardPipeline
from pairlora.execution.planning import plan_run
from pairlora.execution.progress import Listener, ignore
from pairlora.identity import digest_record
from pairlora.presets import PRESETS
from pairlora.records import ImageRecord, ImageReference, Job, Outcome, PlannedImage, ScoreRecord, Shard
from pairlora.report.collection import PairContents, ShownImage
from pairlora.store.checkpoints import Checkpoints
from pairlora.store.parts import decode_records
from pairlora.store.run_store import RunStore
from pairlora.training.packs import TrainedPair

BASELINES_VERSION = 1
"""Raised where what the baselines train or draw changes, so that older results are not taken for theirs."""


@dataclass(frozen=True)
class Workbench:
    """What all arms share: the base, the encoders, the strengths, and the folder whose `store` keeps everything that was made.

    Results on a `topic` of its own have a folder of that name.
    """

    base: Base
    base_name: str
    scorer: Scorer
    folder: Path
    dtype: str = "float32"
    strengths: tuple[float, ...] = RELATIVE_STRENGTHS
    listener: Listener = ignore
    topic: str = ""

    @property
    def store(self) -> RunStore:
        return RunStore(str(self.folder / "store"))

    @property
    def results(self) -> Path:
        """Where tables, figure and sheets go: beside the store, or in a folder of their own for a topic or for other strengths."""
        return self.folder / "-".join(part for part in (self.topic, self._tell_strengths()) if part)

    def _tell_strengths(self) -> str:
        return "" if self.strengths == RELATIVE_STRENGTHS else "at-" + "-".join(f"{one:g}" for one in self.strengths)

    def configure(self, arm: Arm, manifest: Path, seeds: Sequence[int], rate: float | None) -> RunConfig:
        """The run of an arm on a manifest; `rate` replaces the preset's learning rate."""
        preset = PRESETS.get(self.base_name, {})
        settings: dict[str, dict[str, Any]] = {section: dict(fields) for section, fields in arm.settings.items()}
        weights = tuple(one for one in self.strengths if one)
        strengths = {"relative_strengths": (0.0,), "lora_weights": weights} if arm.by_weight else {"relative_strengths": self.strengths}
        sample = {"lora_weights": (), "seeds": tuple(seeds)} | strengths | settings.pop("sample", {})
        train = PUBLISHED | ({} if rate is None else {"learning_rate": rate}) | settings.pop("train", {})
        parts = (manifest.stem, arm.name, rate or "preset", self._tell_strengths())
        run_id = "-".join(str(part) for part in parts if part)
        values = {
            "manifest": str(manifest),
            "output": {"url": self.store.url, "run_id": run_id},
            "base": {**preset.get("base", {}), "name": self.base_name, "dtype": self.dtype},
        }
        values |= {"sample": sample, "train": train, "evaluate": {"perceptual": True}, "execution": {"pack_size": 4}, **settings}
        return RunConfig.model_validate(values)


class FreePipeline(ShardPipeline):
    """Does shards whose adapters were not trained by the library: with trainable A, or not at all."""

    def __init__(self, arm: Arm, *arguments: Any):
        super().__init__(*arguments)
        self.arm = arm

    def _train_pack(
        self, leaders: Sequence[PairWork], train: TrainConfig, shard: str, checkpoints: Checkpoints | None
    ) -> list[TrainedPair]:
        """One pair after the other, without checkpoints: PEFT's layers keep none."""
        return [self._train_alone(work, train) for work in leaders]

    def _train_alone(self, work: PairWork, train: TrainConfig) -> TrainedPair:
        if not self.arm.is_trained:
            return make_silent(self.base)
        return train_free(self.base, work.describe_training(), train, style_only=self.arm.training == "style-only")

    def _draw(self, work: PairWork, missing: dict[str, PlannedImage], shard: str) -> dict[str, Image.Image]:
        if self.arm.transfer is None:
            return super()._draw(work, missing, shard)
        unstyled = {image_id: one for image_id, one in missing.items() if one.is_unstyled}
        return super()._draw(work, unstyled, shard) | self._restyle(work, missing)

    def _restyle(self, work: PairWork, missing: dict[str, PlannedImage]) -> dict[str, Image.Image]:
        """Store the unstyled pictures with other colours; the strength over the guidance scale is the share of the way."""
        plain = {one: one.model_copy(update={"strength": 0.0}) for one in missing.values() if not one.is_unstyled}
        ids = {self._image_id(work.job, unstyled): unstyled for unstyled in plain.values()}
        sources = {(one.prompt, one.seed): self.drawing.read_image(record) for one, record in self._find_unstyled(ids)}
        pictures = {}
        for image_id, one in missing.items():
            if one.is_unstyled:
                continue
            share = one.strength / self.run.sample.guidance_scale
            pictures[image_id] = restyle(str(self.arm.transfer), sources[one.prompt, one.seed], work.style, share)
            self.drawing.store_image(image_id, one, work.job.fingerprint, pictures[image_id])
        return pictures

    def _find_unstyled(self, ids: dict[str, PlannedImage]) -> list[tuple[PlannedImage, ImageRecord]]:
        return [(ids[image_id], record) for image_id, record in self.drawing.find_images(ids).items()]


def identify_job(job: Job, arm: Arm) -> Job:
    """A job with the identity of its arm's way of training; the library's own stays as it is."""
    if arm.training == "pairlora":
        return job
    facts = {"baselines": BASELINES_VERSION, "training": arm.training, "transfer": arm.transfer, "fingerprint": job.fingerprint}
    return job.model_copy(update={"fingerprint": digest_record(facts)})


def run_arm(bench: Workbench, arm: Arm, manifest: Path, seeds: Sequence[int], rate: float | None = None) -> list[PairContents]:
    """Train, draw and score what the store lacks of an arm; every pair of the manifest with its pictures and scores.

    A pair that fails ends the benchmark: an arm without it would be compared on other pairs.
    """
    run = bench.configure(arm, manifest, seeds, rate)
    plan = plan_run(run, bench.store, bench.base.digest)
    arguments = (run, plan.run_id, bench.base, bench.store, bench.scorer, bench.listener)
    pipeline = ShardPipeline(*arguments) if arm.training == "pairlora" else FreePipeline(arm, *arguments)
    found = []
    for planned in plan.shards:
        packs = tuple(pack.model_copy(update={"jobs": tuple(identify_job(job, arm) for job in pack.jobs)}) for pack in planned.packs)
        shard = Shard(name=planned.name, packs=packs)
        outcomes = pipeline.customize_shard(shard, attempt=arm.name)
        if failed := [outcome for outcome in outcomes if outcome.status == "failed"]:
            raise RuntimeError(f"{arm.name}: {failed[0].pair_id} failed: {failed[0].error_class}: {failed[0].error_message}")
        references = bench.store.read_parts(plan.run_id)[f"{shard.name}.{arm.name}.images"]
        found += collect_shard(bench.store, shard, outcomes, decode_records(references, ImageReference))
    return found


def collect_shard(store: RunStore, shard: Shard, outcomes: Sequence[Outcome], references: Sequence[ImageReference]) -> list[PairContents]:
    """The pairs of a shard that was done, with all that the store holds of their pictures."""
    ids = {unstyled: [one.image_id for one in references if one.is_unstyled is unstyled] for unstyled in (True, False)}
    images = store.read_markers("baseline", ids[True], ImageRecord) | store.read_markers("image", ids[False], ImageRecord)
    scores = store.read_markers("score", [one.score_id for one in references], ScoreRecord)
    shown: dict[str, list[ShownImage]] = {job.pair.pair_id: [] for job in shard.jobs}
    for one in references:
        shown[one.pair_id].append(ShownImage(images[one.image_id], scores[one.score_id], one.is_cut))
    jobs = {job.pair.pair_id: job for job in shard.jobs}
    return [PairContents(outcome, jobs[outcome.pair_id], images=tuple(shown[outcome.pair_id])) for outcome in outcomes]


def tabulate_pictures(arm: Arm, pairs: Sequence[PairContents], guidance_scale: float, subjects: Mapping[str, str]) -> pd.DataFrame:
    """One row a picture: arm, pair, style, prompt, whether it shows a thing of the subject's group, seed, setting and raw scores.

    `setting` is the strength over the guidance scale, or the weight of a plain LoRA.
    """
    groups = name_groups()
    rows = []
    for pair in pairs:
        assert pair.job is not None
        subject = pair.pair_id.removesuffix(f"-{pair.job.pair.group}")
        for image in pair.images:
            record = image.record
            setting = record.strength / guidance_scale if record.lora_weight is None else record.lora_weight
            related = groups.get(record.prompt) == subjects[subject]
            head = {"arm": arm.name, "pair_id": pair.pair_id, "style": pair.job.pair.group, "prompt": record.prompt, "related": related}
            rows.append(head | {"seed": record.seed, "setting": round(setting, 4), "url": record.url} | dict(image.values))
    return pd.DataFrame(rows)
