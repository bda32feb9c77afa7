"""Runs of either kind without models: planned on real pictures, and finished by marking their rows in the store."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from tiny_base import make_picture

from pairlora import identity
from pairlora.bases.loading import digest_base
from pairlora.catalogue import identities
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.records import CataloguePlan, FinishedAsset, PlannedAsset
from pairlora.catalogue.run_kind import ASSETS
from pairlora.catalogue.runs import close_catalogue, open_catalogue
from pairlora.config import read_config
from pairlora.execution.run_kinds import PAIRS, RunKind
from pairlora.execution.runs import close_run, open_run
from pairlora.records import AdapterRecord, FinishedPair, Outcome, Plan, PlannedJob
from pairlora.report import ReportSummary
from pairlora.store.parts import encode_records
from pairlora.store.run_store import RunStore

ROWS = 6
FACTS: Sequence[str] = ("url", "sha256", "bytes")


def write_pairs(folder: Path, rows: int) -> str:
    """A manifest of pairs that all differ."""
    make_picture(0).save(folder / "content.png")
    lines = []
    for number in range(rows):
        make_picture(1 + number).save(folder / f"{number}.png")
        lines.append({"pair_id": f"pair-{number}", "content": "content.png", "style": f"{number}.png", "content_prompt": "a fox"})
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(line | {"style_template": "{prompt} in ink"}) for line in lines))
    return str(folder / "pairs.jsonl")


class Studio(ABC):
    """A run of some kind, planned and closed without models."""

    kind: RunKind[Any, Any]
    version: tuple[ModuleType, str]
    run: Any
    store: RunStore

    @abstractmethod
    def open(self) -> Any: ...

    @abstractmethod
    def close(self, plan: Any, lost: list[Outcome]) -> ReportSummary: ...

    @abstractmethod
    def finish(self, plan: Any, rows: Iterable[int], most: int = ROWS) -> None:
        """Mark rows as finished, `most` of those that are not."""

    @abstractmethod
    def write_foreign_plan(self, plan: Any) -> None:
        """A plan whose jobs say what no version so far does."""


class PairStudio(Studio):
    """A run of pairs, a shard each."""

    kind, version = PAIRS, (identity, "ALGORITHM_VERSION")

    def __init__(self, folder: Path, fleet: dict[str, Any]):
        settings = {"manifest": write_pairs(folder, ROWS), "output": {"url": str(folder / "out")}, "execution": {"pack_size": 1}}
        self.run = read_config(settings | {"fleet": fleet})
        self.store = RunStore(self.run.output.url)

    def open(self) -> Plan:
        return open_run(self.run)

    def close(self, plan: Plan, lost: list[Outcome]) -> ReportSummary:
        return close_run(self.run, plan, lost)

    def finish(self, plan: Plan, rows: Iterable[int], most: int = ROWS) -> None:
        keys = self.kind.identify_rows(self.run, plan)
        fingerprints = {job.row: job.fingerprint for job in plan.jobs}
        for row in [row for row in rows if keys[row] not in self.store.list_done("pair")][:most]:
            self.store.mark_done("adapter", fingerprints[row], make_adapter(fingerprints[row], plan.base_digest))
            self.store.mark_done("pair", keys[row], FinishedPair(fingerprint=fingerprints[row], references=(), sizes={}))

    def write_foreign_plan(self, plan: Plan) -> None:
        jobs = [PlannedJob(pair_id=job.row_id, fingerprint=job.fingerprint, job=add_field(job.model_dump_json())) for job in plan.jobs]
        self.store.write_part(plan.run_id, "plan", encode_records(jobs, PlannedJob))


class AssetStudio(Studio):
    """A run over a catalogue, an asset a shard, with one adapter."""

    kind, version = ASSETS, (identities, "CATALOGUE_VERSION")

    def __init__(self, folder: Path, fleet: dict[str, Any]):
        output = {"url": str(folder / "out")}
        self.store = RunStore(output["url"])
        (trained,) = open_run(read_config({"manifest": write_pairs(folder, 1), "output": output})).jobs
        self.store.mark_done("adapter", trained.fingerprint, make_adapter(trained.fingerprint, digest_base("embedded", None)))
        rows = [{"asset_id": f"asset {number}", "image": f"asset {number}.png", "prompt": "a fox"} for number in range(ROWS)]
        for number, row in enumerate(rows):
            make_picture(100 + number).save(folder / row["image"])
        (folder / "catalogue.jsonl").write_text("\n".join(map(json.dumps, rows)))
        settings = {"manifest": str(folder / "catalogue.jsonl"), "output": output, "adapters": ("pair-0",), "shard_assets": 1}
        self.run = CatalogueConfig.model_validate(settings | {"fleet": fleet})

    def open(self) -> CataloguePlan:
        return open_catalogue(self.run)

    def close(self, plan: CataloguePlan, lost: list[Outcome]) -> ReportSummary:
        return close_catalogue(self.run, plan, lost)

    def finish(self, plan: CataloguePlan, rows: Iterable[int], most: int = ROWS) -> None:
        keys = self.kind.identify_rows(self.run, plan)
        for row in [row for row in rows if keys[row] not in self.store.list_done("asset")][:most]:
            self.store.mark_done("asset", keys[row], FinishedAsset(references=(), sizes={}))

    def write_foreign_plan(self, plan: CataloguePlan) -> None:
        assets = [PlannedAsset(asset_id=job.row_id, job=add_field(job.model_dump_json())) for job in plan.jobs]
        self.store.write_part(plan.run_id, "plan", encode_records(assets, PlannedAsset))


def add_field(job: str) -> str:
    return json.dumps(json.loads(job) | {"unheard_of": 1})


def make_adapter(fingerprint: str, base_digest: str) -> AdapterRecord:
    """The marker of a training of which no file is there."""
    files: dict[str, Any] = {f"{role}_{fact}": 0 if fact == "bytes" else fact for role in ("style", "content") for fact in FACTS}
    told = {"train": {}, "base": "embedded", "base_digest": base_digest, "losses": (), "seconds": 0, "device": "cpu"}
    return AdapterRecord(fingerprint=fingerprint, basis_digest="", trained_at=datetime.now(UTC), **files, **told)
