"""Adapters of an earlier run evaluated again: its plan with other encoders, prompts or strengths, and nothing to train."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from pairlora.bases.licences import check_licence
from pairlora.bases.loading import digest_base
from pairlora.config import RunConfig, read_config
from pairlora.errors import ConfigError
from pairlora.execution.planning import continue_run, cut_shards, digest_run, pack_jobs
from pairlora.execution.runs import open_store, read_record, record_run, write_plan
from pairlora.identity import digest_record
from pairlora.manifest.rows import RowCheck
from pairlora.records import AdapterRecord, Job, Plan, Record, RunRecord
from pairlora.report.collection import read_jobs, read_unplanned
from pairlora.store.run_store import RunStore

CHANGEABLE = ("evaluate", "sample", "execution", "pictures")
"""Sections that decide no training."""


class Rescoring(Record):
    """Which run's adapters are evaluated again, and what is to be different."""

    output: str = Field(description="root of the store: a folder or a URL of s3, gs or az")
    secret_block: str | None = Field(default=None, description="name of a Prefect secret block with the store's variables, as of `output`")
    run_id: str | None = Field(default=None, description="the run whose adapters are evaluated again; the newest where null")
    prompts: tuple[str, ...] = Field(default=(), description="test prompts of every pair, in place of its own; those where empty")
    settings: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description=f"what to change of the run's configuration, by section: {', '.join(CHANGEABLE)}",
    )


def open_rescoring(rescoring: Rescoring) -> tuple[RunConfig, Plan]:
    """Plan a run on the adapters of an earlier one and record it. The manifest is not read again.

    ConfigError where a setting decides the training, a prompt is none, or the base is another one by now; StoreError where
    there is no such run.
    """
    prompts = check_prompts(rescoring.prompts)
    store = RunStore(rescoring.output)
    source = read_record(store, rescoring.run_id)
    run = change_settings(source, rescoring)
    check_licence(run.base)
    open_store(run)
    parts = store.read_parts(source.run_id)
    jobs = [replace_prompts(job, prompts) for job in read_jobs(parts)]
    base_digest = digest_base(run.base.name, run.base.revision, run.base.config)
    check_base(store, jobs, base_digest, run.base.name)
    started_at = datetime.now(UTC)
    inputs = digest_record({"rescored": source.run_id, "prompts": list(prompts)})
    plan = Plan(
        run_id=continue_run(store, digest_run(run, inputs)[:6], started_at),
        started_at=started_at,
        manifest=source.manifest,
        manifest_sha256=source.manifest_sha256,
        base_digest=base_digest,
        shards=cut_shards(pack_jobs(jobs, run.execution.largest_pack), run.execution.shard_packs),
        unplanned=tuple(read_unplanned(parts)),
    )
    return run, write_plan(store, run, plan, record_run(run, plan).model_copy(update={"rescored": source.run_id}))


def check_prompts(prompts: Sequence[str]) -> tuple[str, ...]:
    """The prompts, stripped; ConfigError where one is empty, stands twice or cannot be stored."""
    check = RowCheck(0, {"test_prompts": list(prompts)})
    read = check.read_prompts()
    if read is None or check.problems:
        raise ConfigError("; ".join(map(str, check.problems)))
    return read


def change_settings(source: RunRecord, rescoring: Rescoring) -> RunConfig:
    """The configuration of the earlier run with what is to change. The revision of a CLIP goes with its name."""
    changes = rescoring.settings
    if fixed := sorted(changes.keys() - set(CHANGEABLE)):
        raise ConfigError(f"{', '.join(fixed)}: `pairlora run` trains by other settings; only {', '.join(CHANGEABLE)} can change here")
    sections: dict[str, Any] = {name: source.config[name] | changes.get(name, {}) for name in CHANGEABLE}
    if "clip" in (evaluate := changes.get("evaluate", {})):
        sections["evaluate"]["clip_revision"] = evaluate.get("clip_revision")
    sections["execution"]["train_missing"] = False
    return read_config(source.config | sections | {"output": source.config["output"] | {"url": rescoring.output, "run_id": None}})


def replace_prompts(job: Job, prompts: tuple[str, ...]) -> Job:
    """The job with other test prompts; it keeps the ground truth of those that it had before."""
    if not prompts:
        return job

    def keep(by_prompt: Mapping[str, str]) -> dict[str, str]:
        return {prompt: value for prompt, value in by_prompt.items() if prompt in prompts}

    pair = job.pair.model_copy(update={"test_prompts": prompts, "truth": keep(job.pair.truth)})
    return job.model_copy(update={"pair": pair, "truth_sha256": keep(job.truth_sha256)})


def check_base(store: RunStore, jobs: Sequence[Job], base_digest: str, name: str) -> None:
    """ConfigError where the base is not the one that the adapters were trained on: what it drew with them would be neither's."""
    for record in store.read_markers("adapter", (job.fingerprint for job in jobs), AdapterRecord).values():
        if record.base_digest != base_digest:
            raise ConfigError(
                f"base '{name}' is not the one that the run was trained on (digest {base_digest[:12]}, not {record.base_digest[:12]}); "
                "restore it, or train anew with `pairlora run`"
            )
