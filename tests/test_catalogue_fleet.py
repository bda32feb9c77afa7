"""A catalogue in portions: the same files, scores and tables as in one piece, whatever becomes of a machine."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from stocked_store import INK, Stock, open_drawing, write_catalogue

from pairlora.bases import load_base
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.pipeline import CataloguePipeline
from pairlora.catalogue.records import AssetShard, CataloguePlan
from pairlora.catalogue.run_kind import ASSETS
from pairlora.catalogue.runs import close_catalogue, open_catalogue
from pairlora.config import FleetRun
from pairlora.execution.fleet import Dispatcher, Fleet, Phase
from pairlora.execution.portions import close_portion, open_portion
from pairlora.records import Outcome, Portion
from pairlora.report import ReportSummary
from pairlora.store.run_store import RunStore

pytestmark = pytest.mark.slow

NAMES = ("hamburger", "doughnut", "alarm-clock", "pig-face", "fox")
TIMES = ["run_id", "draw_seconds", "score_seconds", "started_at", "attempts"]
Fate = Callable[["Machines", Portion], Phase]


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return Stock(load_base("embedded"), tmp_path_factory.mktemp("stock"))


@pytest.fixture
def run(stock: Stock, tmp_path: Path) -> CatalogueConfig:
    """Five assets in three shards, a portion each, and a store of its own that holds the adapters."""
    shutil.copytree(stock.night.output, tmp_path / "store")
    rows = {f"{name}.png": open_drawing(name, 48) for name in NAMES}
    catalogue = write_catalogue(tmp_path, rows)
    settings = {"shard_assets": 2, "fleet": {"portions": 3, "retries": 1}, "output": {"url": str(tmp_path / "store")}}
    return stock.configure(catalogue, INK, **settings)


class Machines(Dispatcher):
    """Machines that really draw, in this process; what becomes of a portion is its fate, and the last fate is that of all further ones."""

    def __init__(self, stock: Stock, run: CatalogueConfig, fates: Sequence[Fate]):
        self.run, self.store = run, RunStore(run.output.url)
        self._base, self._scorer = stock.night.base, stock.night.scorer
        self._fates = list(fates)
        self.portions: list[Portion] = []
        self.phases: dict[str, Phase] = {}

    def start(self, run: FleetRun, portion: Portion) -> str:
        self.portions.append(portion)
        fate = self._fates.pop(0) if len(self._fates) > 1 else self._fates[0]
        self.phases[portion.name] = fate(self, portion)
        return portion.name

    def look(self, ids: Sequence[str]) -> dict[str, Phase]:
        return {name: self.phases[name] for name in ids}

    def find(self, run_id: str) -> dict[str, Portion]:
        return {}

    def cancel(self, process: str) -> None:
        self.phases[process] = "cancelled"

    def declare_lost(self, process: str) -> None:
        self.phases[process] = "ended"

    def draw(self, plan: CataloguePlan, shards: Iterable[AssetShard], attempt: str = "1") -> None:
        pipeline = CataloguePipeline(self.run, plan.run_id, self._base, self.store, self._scorer)
        for shard in shards:
            pipeline.stylize_shard(shard, attempt)


def do_all(machines: Machines, portion: Portion) -> Phase:
    plan = open_portion(ASSETS, machines.run, portion)
    machines.draw(plan, plan.shards, portion.name)
    close_portion(machines.run, portion, [])
    return "ended"


def die_after_one(machines: Machines, portion: Portion) -> Phase:
    """The first asset of the portion is done, and of the second nothing is known."""
    plan = open_portion(ASSETS, machines.run, portion)
    (shard, *_) = plan.shards
    machines.draw(plan, [shard.model_copy(update={"jobs": shard.jobs[:1]})], portion.name)
    return "ended"


def be_cancelled(machines: Machines, portion: Portion) -> Phase:
    return "cancelled"


def send_out(stock: Stock, run: CatalogueConfig, *fates: Fate) -> tuple[Machines, list[Outcome], ReportSummary]:
    """A fleet over a catalogue whose portions meet these fates, to its report."""
    plan = open_catalogue(run)
    machines = Machines(stock, run, fates)
    lost = Fleet(ASSETS, run, plan, machines, poll=0.01).do_portions() if plan.shards else []
    return machines, lost, close_catalogue(run, plan, lost)


def read_tables(summary: ReportSummary) -> dict[str, pd.DataFrame]:
    """The tables of a run, its own name, times and place left out."""
    tables = {name: pd.read_parquet(url).drop(columns=TIMES, errors="ignore") for name, url in summary.table_urls.items()}
    if "url" in tables["styled"]:
        tables["styled"]["url"] = tables["styled"]["url"].map(lambda url: Path(url).name)
    return tables


def test_a_catalogue_in_portions_is_the_whole(stock: Stock, run: CatalogueConfig, tmp_path: Path):
    shutil.copytree(stock.night.output, tmp_path / "alone")
    alone = run.model_copy(update={"output": run.output.model_copy(update={"url": str(tmp_path / "alone")})})
    plan = open_catalogue(alone)
    Machines(stock, alone, [do_all]).draw(plan, plan.shards)
    whole = read_tables(close_catalogue(alone, plan, []))
    machines, lost, summary = send_out(stock, run, do_all)
    assert (len(machines.portions), lost, summary.counts) == (3, [], {"done": len(NAMES)})
    for name, table in read_tables(summary).items():
        pd.testing.assert_frame_equal(table, whole[name], obj=name)


def test_assets_of_a_lost_machine_are_done_by_another_and_none_is_drawn_twice(stock: Stock, run: CatalogueConfig):
    machines, lost, summary = send_out(stock, run, die_after_one, do_all)
    assert (len(machines.portions), lost, summary.counts) == (4, [], {"done": len(NAMES)})
    assert machines.portions[3].shards == machines.portions[0].shards
    assert summary.images_drawn == 2 * len(NAMES)
    assert len(pd.read_parquet(summary.table_urls["styled"])) == 2 * len(NAMES)


def test_assets_of_a_cancelled_portion_are_rows_and_the_next_run_does_them_and_the_one_after_nothing(stock: Stock, run: CatalogueConfig):
    machines, lost, summary = send_out(stock, run, be_cancelled, do_all)
    table = pd.read_parquet(summary.table_urls["assets"]).set_index("asset_id")
    cancelled = {outcome.pair_id for outcome in lost}
    assert summary.counts == {"done": len(NAMES) - 2, "cancelled": 2}
    assert set(table[table.status == "cancelled"].index) == cancelled
    assert table.error_message[sorted(cancelled)[0]].startswith(f"{machines.portions[0].name} was cancelled")
    named = run.model_copy(update={"output": run.output.model_copy(update={"run_id": "next"})})
    machines, lost, summary = send_out(stock, named, do_all)
    assert (len(machines.portions), lost) == (1, [])
    assert (summary.counts, summary.images_drawn) == ({"done": 2, "reused": 3}, 4)
    again = run.model_copy(update={"output": run.output.model_copy(update={"run_id": "again"})})
    machines, lost, summary = send_out(stock, again, do_all)
    assert (machines.portions, summary.counts, summary.images_drawn) == ([], {"reused": len(NAMES)}, 0)


def test_what_another_run_finished_before_a_portion_began_is_shown_with_its_pictures(stock: Stock, run: CatalogueConfig):
    def wait_for_another(machines: Machines, portion: Portion) -> Phase:
        other = run.model_copy(update={"output": run.output.model_copy(update={"run_id": "other"})})
        plan = open_catalogue(other)
        machines.draw(plan, plan.shards)
        return do_all(machines, portion)

    _, _, summary = send_out(stock, run, wait_for_another, do_all)
    assert (summary.counts, summary.images_drawn) == ({"reused": len(NAMES)}, 0)
    assert len(pd.read_parquet(summary.table_urls["styled"])) == 2 * len(NAMES)


def test_a_fleet_goes_on_with_the_run_that_was_begun_alone(stock: Stock, run: CatalogueConfig):
    alone = CatalogueConfig.model_validate(run.model_dump(exclude={"fleet"}))
    begun = open_catalogue(alone)
    Machines(stock, alone, [do_all]).draw(begun, begun.shards[:1])
    machines, _, summary = send_out(stock, run, do_all)
    assert (summary.run_id, summary.counts, len(machines.portions)) == (begun.run_id, {"done": len(NAMES)}, 2)
