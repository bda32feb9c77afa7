"""What no run of the store needs any more, found from the runs that are kept, and removed: markers first, then what they stood for.

A run that is unfinished is always kept, and so is whatever changed within a day: what a run in progress has made and not yet named.
Reviews and tombstones are never touched, nor is what was made over a catalogue; where there is any, all adapters stay: it may use them.
LoRA files stay as long as a catalogue names them.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pairlora.catalogue.records import ChosenAdapter, ForeignRecord, PlannedAdapter
from pairlora.errors import StoreError
from pairlora.periods import parse_period
from pairlora.records import AdapterRecord, FinishedPair, ImageRecord, ImageReference, Job, PlannedJob, PrefixRecord, RunRecord
from pairlora.store.facts import ObjectFacts
from pairlora.store.keys import CATALOGUE, Kind
from pairlora.store.parts import decode_records
from pairlora.store.run_store import RunStore, side_by_side
from pairlora.store.uploads import Upload

YOUNGEST = timedelta(days=1)
"""What changed more recently is left alone, whatever it is."""
PAYLOADS = ("adapters", "images", "baselines", "prefixes", "bases", "foreign", "checkpoints", ".tmp")
RECORDS: dict[str, Any] = {
    "pair": FinishedPair,
    "adapter": AdapterRecord,
    "image": ImageRecord,
    "baseline": ImageRecord,
    "prefix": PrefixRecord,
    "foreign": ForeignRecord,
}
"""Markers that are read: those that name payloads or an adapter."""
KINDS: tuple[Kind, ...] = ("pair", "score", "prefix", "image", "baseline", "adapter", "foreign")
"""Markers in the order in which they go: never one before those that lean on it."""
UPLOADS = "uploads that never ended"
BATCH = 500
log = logging.getLogger(__name__)


@dataclass
class Needed:
    """What the kept runs name: identities by kind; of unfinished runs also adapters and prompts, since they have not named all yet."""

    named: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    prompts: set[str] = field(default_factory=set)
    open_adapters: set[str] = field(default_factory=set)
    open_prompts: set[str] = field(default_factory=set)

    def add_plan(self, jobs: Iterable[Job], *, is_open: bool) -> None:
        for job in jobs:
            self.named["adapter"].add(job.fingerprint)
            self.prompts.update(job.pair.prompts)
            if is_open:
                self.open_adapters.add(job.fingerprint)
                self.open_prompts.update(job.pair.prompts)

    def add_pictures(self, references: Iterable[ImageReference]) -> None:
        for one in references:
            self.named["baseline" if one.is_unstyled else "image"].add(one.image_id)
            self.named["score"].add(one.score_id)


@dataclass(frozen=True)
class Pruning:
    """What is to go: runs by id, and objects by key with their bytes, in stages, one of which is over before the next begins.

    `folders` are the runs that the store had when this was planned, `uploads` what was begun to be uploaded and never ended.
    """

    runs: tuple[str, ...]
    stages: tuple[Mapping[str, int], ...]
    folders: frozenset[str]
    uploads: tuple[Upload, ...] = ()

    def sum_up(self) -> dict[str, tuple[int, int]]:
        """Objects and bytes by the first folder of their keys, and last the uploads that were not ended."""
        counts, sizes = Counter[str](), Counter[str]()
        for key, size in (item for stage in self.stages for item in stage.items()):
            counts[key.partition("/")[0]] += 1
            sizes[key.partition("/")[0]] += size
        found = {folder: (counts[folder], sizes[folder]) for folder in sorted(counts)}
        return found | ({UPLOADS: (len(self.uploads), sum(one.size for one in self.uploads))} if self.uploads else {})


def parse_age(text: str) -> timedelta:
    """'30d', '36h' or '8w' as a time; ConfigError for anything else, and for less than a day."""
    return parse_period(text, least=YOUNGEST, most=timedelta.max, what="age of a day or more", like="30d, 36h or 8w")


def plan_pruning(store: RunStore, older_than: timedelta, now: datetime | None = None) -> Pruning:
    """What could be removed. Nothing is."""
    return _Planner(store, now or datetime.now(UTC)).plan(older_than)


class _Planner:
    """Goes through a store once; `now` decides what is old."""

    def __init__(self, store: RunStore, now: datetime):
        self._store = store
        self._now = now
        self._needed = Needed()
        self._has_catalogue = False

    def plan(self, older_than: timedelta) -> Pruning:
        folders = self._store.list_run_folders()
        gone = {}
        for run_id in sorted(folders):
            if run_id.startswith(CATALOGUE):
                self._keep_catalogue(run_id)
                continue
            record = self._store.read_run(run_id, RunRecord)
            objects = self._find_run(run_id, record, self._now - older_than)
            if objects is None:
                self._keep(run_id, is_open=record is None or record.finished_at is None)
            elif objects:  # some stores keep the folder of what is gone
                gone[run_id] = objects
        markers, payloads = self._find_markers()
        stages = [*gone.values(), *markers, *(self._find_payloads(folder, payloads) for folder in PAYLOADS)]
        return Pruning(tuple(gone), tuple(filter(None, stages)), folders, tuple(self._find_uploads(self._now - older_than)))

    def _find_uploads(self, before: datetime) -> list[Upload]:
        """The uploads that were begun before then; none, with a warning, where the bucket or the account does not list them."""
        try:
            return [one for one in self._store.list_uploads() if one.begun_at < before]
        except StoreError as error:
            log.warning("uploads that never ended stay, if there are any: %s", error)
            return []

    def _is_young(self, facts: ObjectFacts) -> bool:
        return facts.changed_at is None or facts.changed_at >= self._now - YOUNGEST

    def _find_run(self, run_id: str, record: RunRecord | None, before: datetime) -> dict[str, int] | None:
        """The objects of a run that ended before then, its record first, or that left one never; null for all others."""
        if record is not None and (record.finished_at is None or record.finished_at >= before):
            return None
        listed = self._store.list_objects(f"runs/{run_id}")
        if any(map(self._is_young, listed.values())):
            return None
        keys = sorted(listed, key=lambda key: not key.endswith("/run.json"))
        return {key: listed[key].size for key in keys}

    def _keep(self, run_id: str, *, is_open: bool) -> None:
        for name, data in self._store.read_parts(run_id).items():
            if name == "plan":
                jobs = [Job.model_validate_json(planned.job) for planned in decode_records(data, PlannedJob)]
                self._needed.add_plan(jobs, is_open=is_open)
            elif name.endswith(".images"):
                self._needed.add_pictures(decode_records(data, ImageReference))

    def _keep_catalogue(self, run_id: str) -> None:
        self._has_catalogue = True
        if (part := self._store.read_part(run_id, "adapters")) is not None:
            chosen = (ChosenAdapter.model_validate_json(one.adapter) for one in decode_records(part, PlannedAdapter))
            self._needed.named["foreign"].update(one.fingerprint for one in chosen if one.file)

    def _find_markers(self) -> tuple[list[dict[str, int]], set[str]]:
        """The markers that are not needed, by kind, and the keys of the payloads of all others."""
        stages, payloads = [], set()
        for kind in KINDS:
            listed = self._store.list_markers(kind)
            records = self._store.read_markers(kind, listed, RECORDS[kind]) if kind in RECORDS else {}
            kept = {one for one, facts in listed.items() if self._is_young(facts) or self._is_needed(kind, one, records.get(one))}
            stages.append({facts.key: facts.size for one, facts in listed.items() if one not in kept})
            payloads.update(key for one in kept & records.keys() for key in _name_payloads(records[one]))
        return stages, payloads

    def _is_needed(self, kind: Kind, identity: str, record: object) -> bool:
        needed = self._needed
        if identity in needed.named[kind] or (kind == "adapter" and self._has_catalogue):
            return True
        match record:
            case FinishedPair():
                scores = {one.score_id for one in record.references}
                return record.fingerprint in needed.open_adapters or scores <= needed.named["score"]
            case ImageRecord():
                return record.prompt in needed.open_prompts if record.is_unstyled else record.fingerprint in needed.open_adapters
            case PrefixRecord():
                return record.prompt in needed.prompts
        return kind == "score" and bool(needed.open_adapters)  # a score does not say whose it is

    def _find_payloads(self, folder: str, payloads: set[str]) -> dict[str, int]:
        """The objects of a folder that no marker names; a checkpoint is needed by an unfinished run of its training."""
        listed = self._store.list_objects(folder)
        if folder == "checkpoints":
            payloads = {key for key in listed if key.split("/")[1] in self._needed.open_adapters}
        return {key: facts.size for key, facts in listed.items() if key not in payloads and not self._is_young(facts)}


def _name_payloads(record: object) -> list[str]:
    match record:
        case AdapterRecord():
            return [key for key in (record.style_url, record.content_url, record.basis_url) if key]
        case ImageRecord() | PrefixRecord() | ForeignRecord():
            return [record.url]
    return []


def carry_out(store: RunStore, pruning: Pruning) -> None:
    """Remove what was planned. StoreError where a run began meanwhile: it may need some of it."""
    side_by_side(store.abort_upload, pruning.uploads)
    for keys in map(list, pruning.stages):
        for start in range(0, len(keys), BATCH):
            if store.list_run_folders() - pruning.folders:
                raise StoreError(f"a run began in {store.url} while it was pruned, and may need what is left; prune again after it")
            side_by_side(store.drop_payload, keys[start : start + BATCH])
    log.info("removed %d objects and %d uploads", sum(map(len, pruning.stages)), len(pruning.uploads))
