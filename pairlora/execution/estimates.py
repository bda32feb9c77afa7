"""What a run would cost: work that is left, by the plan; time and space, by what the store's earlier work took."""

from collections.abc import Mapping, Sequence, Set
from statistics import fmean

from pairlora.bases.licences import check_licence
from pairlora.bases.loading import digest_base
from pairlora.bases.outputs import count_adapter_bytes
from pairlora.config import RunConfig
from pairlora.execution.planning import plan_images, plan_run
from pairlora.execution.workers import parse_devices
from pairlora.identity import identify_image
from pairlora.records import AdapterRecord, Job, PlannedImage, Record
from pairlora.sampling.row_counts import count_planned_rows
from pairlora.sampling.trajectories import Timing, Trajectory, request_image
from pairlora.store.run_store import RunStore

SAMPLED_ADAPTERS = 50

REFERENCE = {"embedded": (0.045, 0.012, 1_150_000, 8_000), "sdxl": (1.2, 0.35, 341_000_000, 1_500_000)}
"""Where the store has nothing yet: seconds per row of training and of drawing, bytes of an adapter and of a picture.

Embedded: one slow CPU core. SDXL: the paper's 15 minutes a pair on an A5000. The bytes of an adapter follow from the layers' widths
where these are known; those here stand for bases that are not.
"""


class Estimate(Record):
    """Work that is left, and about what it takes."""

    pairs: int
    unplanned: int
    packs: int
    shards: int
    devices: int
    adapters_left: int
    adapters_reused: int
    images_left: int
    images_reused: int
    seconds: float
    bytes: int
    adapter_bytes: int
    image_bytes: int

    def describe(self) -> dict[str, str]:
        """The estimate in words."""
        each = f"{self.adapter_bytes / 1e6:,.1f} MB an adapter, {self.image_bytes / 1e6:,.2f} MB a picture"
        return {
            "pairs": f"{self.pairs} in {self.packs} packs and {self.shards} shards on {self.devices} devices",
            "cannot be done": f"{self.unplanned} rows" if self.unplanned else "none",
            "adapters": f"{self.adapters_left} to train, {self.adapters_reused} in the store",
            "images": f"{self.images_left} to draw, {self.images_reused} in the store",
            "time": f"about {max(1, round(self.seconds / 60))} minutes" if self.adapters_left or self.images_left else "seconds",
            "space": f"about {self.bytes / 1e6:,.0f} MB: {each}",
        }


def estimate_run(run: RunConfig) -> Estimate:
    """Plan a run without opening it, and compare it with the store."""
    check_licence(run.base)
    store = RunStore(run.output.url, timeout=run.output.timeout_seconds)
    plan = plan_run(run, store, digest_base(run.base.name, run.base.revision, run.base.config))
    adapters, images = store.list_done("adapter"), store.list_done("image") | store.list_done("baseline")
    fingerprints = {job.fingerprint for job in plan.jobs}
    pictures = [_plan_pictures(job, run, plan.base_digest) for job in plan.jobs]
    wanted = {image_id for planned in pictures for image_id in planned}
    devices = min(len(parse_devices(run.execution.devices)), max(1, len(plan.shards)))
    left, undrawn = len(fingerprints - adapters), len(wanted - images)
    train_seconds, row_seconds, adapter_bytes, image_bytes = _measure_costs(run, store, adapters)
    return Estimate(
        pairs=len(plan.jobs),
        unplanned=len(plan.unplanned),
        packs=sum(len(shard.packs) for shard in plan.shards),
        shards=len(plan.shards),
        devices=devices,
        adapters_left=left,
        adapters_reused=len(fingerprints & adapters),
        images_left=undrawn,
        images_reused=len(wanted & images),
        seconds=(left * train_seconds + _count_rows_left(pictures, images, run) * row_seconds) / devices,
        bytes=left * adapter_bytes + undrawn * image_bytes,
        adapter_bytes=adapter_bytes,
        image_bytes=image_bytes,
    )


def _plan_pictures(job: Job, run: RunConfig, base_digest: str) -> dict[str, PlannedImage]:
    return {
        identify_image(planned, run.sample, fingerprint=job.fingerprint, base_digest=base_digest, dtype=run.base.dtype): planned
        for planned in plan_images(job.pair, run)
    }


def _count_rows_left(pictures: Sequence[Mapping[str, PlannedImage]], images: Set[str], run: RunConfig) -> int:
    """Rows of the denoiser that the jobs' missing pictures take, job by job; unstyled ones and prefixes are drawn by the first."""
    timing, done, rows = Timing.evenly(run.sample), set(images), 0
    prefixes: set[Trajectory] = set()
    for planned in pictures:
        missing = [one for image_id, one in planned.items() if image_id not in done]
        rows += count_planned_rows(missing, timing, known=prefixes)
        prefixes |= {request_image(one).prefix for one in missing if one.lora_weight is None}
        done |= planned.keys()
    return rows


def _measure_costs(run: RunConfig, store: RunStore, adapters: set[str]) -> tuple[float, float, int, int]:
    """Seconds a training and a row of drawing, bytes of an adapter and a picture: measured where there are trainings of this recipe."""
    train_row, draw_row, adapter_bytes, image_bytes = REFERENCE.get(run.base.name, REFERENCE["sdxl"])
    train = run.train
    rows = train.draws * (2 * train.steps - train.content_steps)
    records = store.read_markers("adapter", sorted(adapters)[:SAMPLED_ADAPTERS], AdapterRecord).values()
    alike = [record for record in records if record.train == train.model_dump(mode="json")]
    if not alike:
        computed = count_adapter_bytes(run.base.name, train.content_rank, train.style_rank)
        return rows * train_row, draw_row, computed or adapter_bytes, image_bytes
    measured = round(fmean(record.style_bytes + record.content_bytes for record in alike))
    return fmean(record.seconds for record in alike), draw_row, measured, image_bytes
