"""A run as the pipeline leaves it in a store, without training anything."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from pairlora.adapters.basis import split_basis
from pairlora.adapters.files import Matrices
from pairlora.adapters.masters import store_master
from pairlora.adapters.routing import Role
from pairlora.config import EvaluateConfig, OutputConfig, RunConfig, SampleConfig, TrainConfig
from pairlora.images import encode_png
from pairlora.measures import METRICS
from pairlora.records import (
    AdapterRecord,
    ImageRecord,
    ImageReference,
    Job,
    Outcome,
    Pair,
    PlannedJob,
    RunRecord,
    ScoreRecord,
    StepLoss,
)
from pairlora.report import ReportSummary, build_report
from pairlora.store.parts import encode_records
from pairlora.store.run_store import RunStore

RUN_ID = "20260102T030405Z-abcdef"
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROMPTS = ("a fox", "a <script>alert('prompt')</script> & tree")
SEEDS = (0, 1)
TRAIN = TrainConfig(steps=77, content_steps=20, learning_rate=0.002)
STRENGTHS = (0.0, 1.25, 2.5)
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
SCORED = ("direction", "style_similarity", "structure_ssim", "content_leakage", "truth_similarity", "truth_perceptual_similarity", "spread")


def digest(*parts: object) -> str:
    return sha256(repr(parts).encode()).hexdigest()


def draw_picture(*parts: object, side: int = 64) -> Image.Image:
    """A picture of noise that its parts alone decide."""
    rng = np.random.default_rng(int(digest(*parts)[:8], 16))
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


def draw_matrices(seed: int = 0) -> dict[Role, Matrices]:
    """An adapter on two layers of SDXL's, of different widths; both roles' A are of one frame."""
    generator = torch.Generator().manual_seed(seed)
    layers = {f"{BLOCK}.attn1.to_q": 16, f"{BLOCK}.attn2.to_k": 24}
    drawn = {width: dict(zip((Role.CONTENT, Role.STYLE), split_basis(width, 2, 2, 0), strict=True)) for width in layers.values()}
    return {
        role: {layer: (drawn[width][role], torch.randn((16, 2), generator=generator)) for layer, width in layers.items()} for role in Role
    }


def score_picture(pair_id: str, prompt: str, seed: int, strength: float) -> dict[str, float | None]:
    """Values that differ for each picture, so that a wrong pairing gives wrong gains."""
    rng = np.random.default_rng(int(digest("score", pair_id, prompt, seed, strength)[:8], 16))
    noise = {name: float(value) for name, value in zip(SCORED, rng.uniform(0, 0.05, len(SCORED)), strict=True)}
    means = {"style_similarity": 0.5, "spread": 0.1, "content_leakage": 0.0, "truth_similarity": 0.4 + strength / 10}
    scores: dict[str, float | None] = {name: noise[name] + mean for name, mean in means.items()}
    scores["truth_perceptual_similarity"] = noise["truth_perceptual_similarity"] + 0.3 + strength / 8
    scores["direction"] = strength / 5 + noise["direction"] if strength else None
    scores["progress"] = scores["direction"] if strength else 0.0
    scores["structure_ssim"] = 1 - strength / 5 - noise["structure_ssim"] if strength else 1.0
    return scores


class Staged:
    """A run in a store, written as the pipeline writes it, with tools to add pairs.

    `night` counts runs of one store. `trained_anew` names pairs whose adapter is not that of other nights, and what that
    adds to their directions.
    """

    def __init__(self, folder: Path, night: int = 0, trained_anew: Mapping[str, float] | None = None):
        self.folder = folder
        self.run_id = f"2026010{2 + night}T030405Z-abcdef"
        self.started = STARTED + timedelta(days=night)
        self.shifts = dict(trained_anew or {})
        self.store = RunStore(str(folder / "store"))
        self.run = self.configure()
        self.jobs: list[Job] = []
        self.outcomes: list[Outcome] = []
        self.references: list[ImageReference] = []
        self.unplanned: list[Outcome] = []

    def configure(self) -> RunConfig:
        """The run's configuration."""
        return RunConfig(
            manifest=str(self.folder / "pairs & <b>.csv"),
            output=OutputConfig(url=str(self.folder / "store"), single_writer=False),
            train=TRAIN,
            sample=SampleConfig(seeds=SEEDS, relative_strengths=(0.0, 0.5, 1.0), guidance_scale=2.5),
            evaluate=EvaluateConfig(structure_floor=0.3, least_progress=0.4, bootstrap_samples=200),
        )

    def draw(self, *parts: object) -> Image.Image:
        """The picture that parts stand for."""
        return draw_picture(*parts)

    def add_job(self, row: int, pair_id: str, *, truth: bool = False, prompts: Sequence[str] = PROMPTS) -> Job:
        """Plan a pair, with its pictures on the disk."""
        for role in ("content", "style", "truth"):
            self.draw(pair_id, role).save(self.folder / f"{pair_id}-{role}.png")
        pair = Pair(
            row=row,
            pair_id=pair_id,
            content=str(self.folder / f"{pair_id}-content.png"),
            style=str(self.folder / f"{pair_id}-style.png"),
            content_prompt="a dog",
            style_template="{prompt} in ink",
            test_prompts=tuple(prompts),
            truth={prompts[0]: str(self.folder / f"{pair_id}-truth.png")} if truth else {},
            group="animals",
            licence="CC0-1.0",
        )
        train = self.run.train.model_dump(mode="json")
        night = self.run_id if pair_id in self.shifts else ""
        job = Job(pair=pair, content_sha256="c", style_sha256="s", train=train, fingerprint=digest("fingerprint", pair_id, night))
        self.jobs.append(job)
        return job

    def settle(self, job: Job, status: str = "done", **facts: object) -> Outcome:
        fields = {"pair_id": job.pair.pair_id, "row": job.pair.row, "status": status, "fingerprint": job.fingerprint, "trained": True}
        fields |= {"started_at": self.started, "device": "cpu", "train_seconds": 60.0, "images_drawn": 12, **facts}
        outcome = Outcome.model_validate(fields)
        self.outcomes.append(outcome)
        return outcome

    def add_adapter(self, job: Job) -> AdapterRecord:
        facts = {role: {"role": str(role), "rank": "2", "family": "sdxl", "blocks": "2"} for role in Role}
        files = store_master(self.store, job.fingerprint, draw_matrices(), facts, "unet")
        losses = [StepLoss(step=1, content_loss=0.5, style_loss=None, content_gradient_norm=1.0, style_gradient_norm=None)]
        losses += [StepLoss(step=2, content_loss=0.25, style_loss=0.125, content_gradient_norm=1.0, style_gradient_norm=2.0)]
        fields: dict[str, object] = {"fingerprint": job.fingerprint, "basis_digest": "b", "train": job.train, "base": "embedded"}
        fields |= {**files, "base_digest": "d", "losses": losses, "seconds": 60.0, "device": "cpu", "trained_at": STARTED}
        record = AdapterRecord.model_validate(fields)
        self.store.mark_done("adapter", job.fingerprint, record)
        return record

    def add_images(self, job: Job) -> list[ImageRecord]:
        return [self.add_image(job, prompt, seed, strength) for prompt in job.pair.prompts for seed in SEEDS for strength in STRENGTHS]

    def add_image(
        self, job: Job, prompt: str, seed: int, strength: float, *, lora_weight: float | None = None, is_cut: bool = False
    ) -> ImageRecord:
        styled = bool(strength or lora_weight)
        fingerprint = job.fingerprint if styled else ""
        image_id = digest("image", fingerprint, prompt, seed, strength, lora_weight)
        data = encode_png(self.draw(image_id))
        stored = self.store.put_image(data) if styled else self.store.put_baseline(data)
        record = ImageRecord(
            image_id=image_id,
            fingerprint=fingerprint,
            prompt=prompt,
            style_prompt=job.pair.style_prompt(prompt) if styled else "",
            seed=seed,
            strength=strength,
            lora_weight=lora_weight,
            guidance_scale=2.5,
            profile="own",
            url=stored.key,
            sha256=stored.sha256,
            bytes=stored.bytes,
        )
        self.store.mark_done("image" if styled else "baseline", image_id, record)
        self.add_scores(job, record, is_cut=is_cut)
        return record

    def add_scores(self, job: Job, image: ImageRecord, *, is_cut: bool) -> None:
        score_id = digest("score", job.pair.pair_id, image.image_id)
        scores = score_picture(job.pair.pair_id, image.prompt, image.seed, image.lora_weight or image.strength)
        if scores["direction"] is not None:
            scores["direction"] += self.shifts.get(job.pair.pair_id, 0.0)
        if image.prompt not in job.pair.truth:
            scores = {name: value for name, value in scores.items() if not name.startswith("truth")}
        encoders = {name: f"{METRICS[name].encoder}@1" if METRICS[name].encoder else "" for name in scores}
        self.store.mark_done("score", score_id, ScoreRecord(score_id=score_id, image_id=image.image_id, scores=scores, encoders=encoders))
        self.references.append(
            ImageReference(
                pair_id=job.pair.pair_id,
                image_id=image.image_id,
                score_id=score_id,
                strength=image.strength,
                lora_weight=image.lora_weight,
                is_cut=is_cut,
            )
        )

    def write(self) -> None:
        planned = [PlannedJob(pair_id=job.pair.pair_id, fingerprint=job.fingerprint, job=job.model_dump_json()) for job in self.jobs]
        self.store.write_part(self.run_id, "plan", encode_records(planned, PlannedJob))
        self.write_shard("shard-0000-aa", self.outcomes, self.references)
        self.store.write_part(self.run_id, "unplanned.outcomes", encode_records(self.unplanned, Outcome))
        record = RunRecord(
            run_id=self.run_id,
            manifest=self.run.manifest,
            manifest_sha256="e" * 64,
            config=self.run.model_dump(mode="json"),
            versions={"pairlora": "0.1.0"},
            started_at=self.started,
            finished_at=self.started + timedelta(minutes=3),
        )
        self.store.write_run(self.run_id, record)

    def write_shard(self, name: str, outcomes: Sequence[Outcome], references: Sequence[ImageReference]) -> None:
        tried = [outcome.model_copy(update={"shard": name, "attempt": "1"}) for outcome in outcomes]
        self.store.write_log(self.run_id, f"{name}.1", f"INFO [{','.join(one.pair_id for one in tried)}] begun\n")
        self.store.write_part(self.run_id, f"{name}.outcomes", encode_records(tried, Outcome))
        self.store.write_part(self.run_id, f"{name}.images", encode_records(references, ImageReference))

    def build(self) -> ReportSummary:
        self.write()
        record = self.store.read_run(self.run_id, RunRecord)
        assert record is not None
        return build_report(self.store, record, credits=("Drawn by <b>nobody</b>",))

    def page(self, name: str = "index") -> str:
        """A page, built anew: the first one, or pairs/<pair id>."""
        return Path(self.build().report_url).parent.joinpath(f"{name}.html").read_text()

    def table(self, name: str) -> pd.DataFrame:
        """A table, built anew."""
        return pd.read_parquet(self.build().table_urls[name])


def stage_night(
    folder: Path, night: int = 0, trained_anew: Mapping[str, float] | None = None, pairs: Sequence[str] = ("dog", "cat", "cow")
) -> Staged:
    """A night of pairs that are all done."""
    run = Staged(folder, night, trained_anew)
    for row, pair_id in enumerate(pairs, 1):
        job = run.add_job(row, pair_id)
        run.settle(job)
        run.add_adapter(job)
        run.add_images(job)
    return run


def stage_run(folder: Path) -> Staged:
    """Two done pairs, the second with a ground truth for its first prompt; one failed, one invalid, one unreadable."""
    run = Staged(folder)
    for row, (pair_id, truth) in enumerate([("dog", False), ("cat", True)], 1):
        job = run.add_job(row, pair_id, truth=truth)
        run.settle(job)
        run.add_adapter(job)
        run.add_images(job)
    error = {"error_class": "DivergedError", "error_message": "losses <script>x</script> stopped being finite"}
    run.settle(run.add_job(3, "cow"), "failed", images_drawn=0, trained=False, **error)
    invalid = {"error_class": "ManifestError", "error_message": "row 4, pair_id: repeats row 1; give it another id"}
    missing = {"error_class": "MissingPictureError", "error_message": "owl.png: there is no such file"}
    run.unplanned = [
        Outcome.model_validate({"pair_id": "dog", "row": 4, "status": "invalid", **invalid}),
        Outcome.model_validate({"pair_id": "owl", "row": 5, "status": "failed", **missing}),
    ]
    return run
