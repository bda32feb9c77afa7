"""From a manifest to shards: digests, identities, packs that train in one batch, shards of packs."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pairlora.config import RunConfig, TrainConfig
from pairlora.errors import ConfigError, ForgottenPictureError, PairloraError
from pairlora.execution.digests import PictureDigests, digest_pictures
from pairlora.identity import digest_record, fingerprint_training
from pairlora.manifest.reading import BadRow, digest_manifest, load_pairs
from pairlora.records import Job, Outcome, Pack, Pair, Plan, PlannedImage, Problem, RowJob, RunRecord, Shard
from pairlora.store.run_store import RunStore

MOST_SHARDS = 400
"""Task runs of a flow run that Prefect's server and the flow's process take without notice; 1,000 are about what they stand."""
Item = TypeVar("Item")
AnyJob = TypeVar("AnyJob", bound=RowJob)


def plan_run(run: RunConfig, store: RunStore, base_digest: str, *, remember: bool = False) -> Plan:
    """Read and check the manifest, give every pair its identity, and cut the work into shards.

    With `remember` the store keeps the digests of pictures, so that the next plan reads those alone that changed. Raises ManifestError
    for bad rows, unless the configuration skips them; a pair whose pictures cannot be read is an outcome of the plan, not an error.
    """
    pairs, bad_rows = load_pairs(run.manifest, run.train, skip_bad_rows=run.execution.skip_bad_rows)
    urls = (url for pair in pairs for url in (pair.content, pair.style, *pair.truth.values()))
    digests = digest_pictures(store, run.manifest, urls, run.pictures.max_bytes, remember=remember)
    results = list(map(JobMaker(run, base_digest, digests).make, pairs))
    tombstones = store.list_tombstones()
    results = [refuse_forgotten(result, tombstones) for result in results]
    jobs = [result for result in results if isinstance(result, Job)]
    failed = [result for result in results if isinstance(result, Outcome)]
    manifest_sha256 = digest_manifest(run.manifest)
    started_at = datetime.now(UTC)
    return Plan(
        run_id=choose_run_id(run, store, manifest_sha256, started_at),
        started_at=started_at,
        manifest=run.manifest,
        manifest_sha256=manifest_sha256,
        base_digest=base_digest,
        shards=cut_shards(pack_jobs(jobs, run.execution.largest_pack), run.execution.shard_packs),
        unplanned=(*map(describe_bad_row, bad_rows), *failed),
    )


class JobMaker:
    """Makes the jobs of one run; pairs without settings of their own share one record of the training's."""

    def __init__(self, run: RunConfig, base_digest: str, digests: PictureDigests):
        self._run = run
        self._base_digest = base_digest
        self._digests = digests
        self._shared = run.train.model_dump(mode="json")

    def make(self, pair: Pair) -> Job | Outcome:
        """A pair with its digests and fingerprint, or the failed outcome that says which picture cannot be read."""
        try:
            content, style, *truths = (self._digests[url] for url in (pair.content, pair.style, *pair.truth.values()))
        except PairloraError as error:
            return Outcome(pair_id=pair.pair_id, row=pair.row, status="failed", error_class=type(error).__name__, error_message=str(error))
        run = self._run
        train = TrainConfig.model_validate({**run.train.model_dump(), **pair.overrides}) if pair.overrides else run.train
        fingerprint = fingerprint_training(
            pair, train, content_sha256=content, style_sha256=style, base_digest=self._base_digest, dtype=run.base.dtype
        )
        # without validation, which would copy the settings for each of 100,000 pairs
        return Job.model_construct(
            pair=pair,
            content_sha256=content,
            style_sha256=style,
            truth_sha256=dict(zip(pair.truth, truths, strict=True)),
            train=train.model_dump(mode="json") if pair.overrides else self._shared,
            fingerprint=fingerprint,
        )


def refuse_forgotten(result: AnyJob | Outcome, tombstones: set[str]) -> AnyJob | Outcome:
    """The job, or the `invalid` row of one whose pictures are not to be used again."""
    if isinstance(result, Outcome) or not (forgotten := [role for role, sha256 in result.pictures if sha256 in tombstones]):
        return result
    problem = Problem(row=result.row, field=forgotten[0], what="the picture was forgotten", remedy="take the row out of the manifest")
    error_class = ForgottenPictureError.__name__
    return Outcome(pair_id=result.row_id, row=result.row, status="invalid", error_class=error_class, error_message=str(problem))


def describe_bad_row(row: BadRow) -> Outcome:
    """The `invalid` row of the report that stands for a bad row of the manifest."""
    message = "; ".join(str(problem) for problem in row.problems)
    return Outcome(pair_id=row.pair_id, row=row.row, status="invalid", error_class="ManifestError", error_message=message)


def pack_jobs(jobs: Iterable[Job], pack_size: int) -> list[Pack]:
    """Group jobs whose training configurations agree but for the seed; pairs that share a training come side by side."""
    jobs = list(jobs)
    first_row: dict[str, int] = {}
    for job in jobs:
        first_row.setdefault(job.fingerprint, job.pair.row)
    groups: dict[str, list[Job]] = defaultdict(list)
    for job in sorted(jobs, key=lambda job: first_row[job.fingerprint]):
        settings = {field: value for field, value in job.train.items() if field != "seed"}
        groups[json.dumps(settings, sort_keys=True)].append(job)
    return [Pack(jobs=tuple(chunk)) for group in groups.values() for chunk in cut(group, pack_size)]


def cut(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive pieces of `size`, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def cut_shards(packs: Sequence[Pack], shard_packs: int | Literal["auto"]) -> tuple[Shard, ...]:
    """Packs in shards of `shard_packs`, named by their place and their content; with 'auto' as few as leave at most `MOST_SHARDS`."""
    size = max(1, -(-len(packs) // MOST_SHARDS)) if shard_packs == "auto" else shard_packs
    shards = []
    for index, chunk in enumerate(cut(packs, size)):
        content = digest_record({"jobs": [[job.pair.pair_id, job.fingerprint] for pack in chunk for job in pack.jobs]})
        shards.append(Shard(name=f"shard-{index:04d}-{content[:8]}", packs=tuple(chunk)))
    return tuple(shards)


def plan_images(pair: Pair, run: RunConfig) -> list[PlannedImage]:
    """The pictures that a pair calls for, unstyled ones first of each prompt and seed, those of the plain LoRA last."""
    settings = [(strength, None) for strength in run.sample.strengths] + [(0.0, weight) for weight in run.sample.lora_weights]
    return [
        PlannedImage(prompt=prompt, style_prompt=pair.style_prompt(prompt), seed=seed, strength=strength, lora_weight=weight)
        for prompt in pair.prompts
        for seed in run.sample.seeds
        for strength, weight in settings
    ]


def digest_run(run: RunConfig, manifest_sha256: str) -> str:
    """What two runs must share for one to go on with the other: manifest and everything that decides results."""
    decisive = run.model_dump(mode="json", exclude={"manifest", "output", "execution", "fleet"})
    return digest_record({"manifest": manifest_sha256, "config": decisive})


def choose_run_id(run: RunConfig, store: RunStore, manifest_sha256: str, now: datetime) -> str:
    """The run named by the configuration, else the newest unfinished one of this manifest and config, else a new one.

    ConfigError where the named run is one of another manifest.
    """
    if run.output.run_id is not None:
        named = store.read_run(run.output.run_id, RunRecord)
        if named is not None and named.manifest_sha256 != manifest_sha256:
            raise ConfigError(f"run {run.output.run_id} was made of another manifest ({named.manifest}); choose another --run-id")
        return run.output.run_id
    return continue_run(store, digest_run(run, manifest_sha256)[:6], now)


def continue_run(store: RunStore, suffix: str, now: datetime, prefix: str = "") -> str:
    """The newest unfinished run that has the same inputs, which `suffix` stands for, else a new one; `prefix` begins ids of its kind."""
    for run_id in reversed(store.list_runs(prefix)):
        if not run_id.endswith(f"-{suffix}"):
            continue
        record = store.read_run(run_id, RunRecord)
        if record is not None and record.finished_at is None:
            return run_id
        break
    return f"{prefix}{now:%Y%m%dT%H%M%SZ}-{suffix}"
