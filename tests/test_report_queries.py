"""The questions of docs/reports.md, asked as the page writes them of two real nights, on the local disk and on S3."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pandas as pd
import pytest
from conftest import BUCKET, S3Server, use_s3
from PIL import Image
from real_run import QUICK, Night, write_manifest
from staged_run import stage_run

from pairlora.bases import load_base
from pairlora.execution.runs import rebuild_report
from pairlora.review.decisions import ReviewDesk
from pairlora.store.run_store import RunStore

PAGE = Path(__file__).parents[1] / "docs" / "reports.md"


def read_questions() -> dict[str, str]:
    """The page's SQL by the heading above it."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {section.splitlines()[0]: match[1] for section in sections if (match := re.search(r"```sql\n(.*?)```", section, re.DOTALL))}


class Nights:
    """The nights of a store, their reports built anew, and a connection that has the page's views of them."""

    def __init__(self, store: RunStore):
        self.reports = [rebuild_report(store, run_id) for run_id in store.list_runs()]
        self.connection = duckdb.connect()
        if store.url.startswith("s3:"):
            self.connection.register_filesystem(fsspec.filesystem("s3"))
        self.connection.execute(read_questions()["Where the tables are"].replace("'out/", f"'{store.url}/"))

    def ask(self, heading: str) -> Any:
        return self.connection.execute(read_questions()[heading]).df()

    def read(self, table: str, report: int = -1) -> Any:
        """A table of one night, without DuckDB."""
        url = self.reports[report].table_urls[table]
        with fsspec.open(url, "rb") as file:
            return pd.read_parquet(file)  # pyright: ignore[reportArgumentType]

    def find_direction(self, report: int) -> Any:
        """Mean direction at the recommended strength, by pair."""
        pairs, summaries = (self.read(table, report) for table in ("pairs", "summaries"))
        found = summaries.query("metric == 'direction' and prompt == ''").merge(pairs[["pair_id", "recommended_strength"]], on="pair_id")
        return found.query("strength == recommended_strength").set_index("pair_id")["value"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two nights: two good pairs, trained anew in the second, and one whose picture is a text; one adapter accepted."""
    folder = tmp_path_factory.mktemp("nights")
    manifest = write_manifest(folder)
    first = json.loads(manifest.read_text().splitlines()[0])
    (folder / "text.png").write_text("no picture")
    with manifest.open("a") as file:
        file.write("\n" + json.dumps(first | {"pair_id": "broken", "style": "text.png"}))
    night = Night(load_base("embedded"), manifest, str(folder / "store"))
    evaluate = {"clip": "embedded", "structure_floor": 0.0, "bootstrap_samples": 100}
    for seed in (0, 1):
        night.run(evaluate=evaluate, train=QUICK["train"] | {"seed": seed})
    ReviewDesk(night.store).decide(first["pair_id"], "accept", reviewer="anna")
    return folder / "store"


@pytest.fixture(scope="module", params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def nights(request: pytest.FixtureRequest, local: Path) -> Iterator[Nights]:
    """The nights with the decision in their reports, on the local disk, and copied to a bucket."""
    if request.param == "local":
        yield Nights(RunStore(str(local)))
        return
    server: S3Server = request.getfixturevalue("s3_server")
    with pytest.MonkeyPatch.context() as patch:
        use_s3(server, patch)
        fsspec.filesystem("s3").put(f"{local}/", f"{BUCKET}/nights/", recursive=True)
        yield Nights(RunStore(f"s3://{BUCKET}/nights"))


def test_the_page_asks_five_questions():
    assert len(read_questions()) == 6  # one of them names the tables


def test_the_worst_are_those_of_the_newest_night_by_verdict_and_style(nights: Nights):
    worst = nights.ask("The worst ten of last night")
    pairs = nights.read("pairs").dropna(subset=["verdict"])
    assert sorted(worst.pair_id) == sorted(pairs.pair_id)
    grades = [["reject", "review", "accept"].index(verdict) for verdict in worst.verdict]
    assert grades == sorted(grades)
    directions = nights.find_direction(-1)
    for _, row in worst.dropna(subset=["direction"]).iterrows():
        assert row["direction"] == pytest.approx(directions[row["pair_id"]], abs=0.005)
    assert worst.why.str.len().min() > 10


def test_a_group_has_a_row_a_night(nights: Nights):
    trend = nights.ask("How a group does from night to night").set_index(["group", "run_id"])
    known = {(report.run_id, pair) for report in nights.reports for pair in nights.find_direction(nights.reports.index(report)).index}
    assert len(trend) == trend.pairs.sum() == len(known) > 0
    groups = nights.read("pairs").set_index("pair_id")["group"]
    for index, report in enumerate(nights.reports):
        for pair_id, value in nights.find_direction(index).items():
            assert trend.loc[(groups[pair_id], report.run_id), "direction"] == pytest.approx(value, abs=0.0006)


def test_device_hours_count_each_accepted_adapter_once(nights: Nights):
    cost = nights.ask("Device hours per accepted adapter").set_index("group")
    tables: Any = pd.concat([nights.read("pairs", index) for index in range(len(nights.reports))])
    seconds = tables[["train_seconds", "draw_seconds", "score_seconds"]].sum(axis=1).groupby(tables["group"]).sum()
    assert cost.device_hours.to_dict() == pytest.approx((seconds / 3600).to_dict())
    accepted = tables[tables.decision.fillna(tables.verdict) == "accept"].groupby("group")["fingerprint"].nunique()
    assert cost.accepted[cost.accepted > 0].to_dict() == accepted.to_dict()
    assert cost.accepted.max() >= 1


def test_what_fails_says_since_when(nights: Nights):
    (failure,) = nights.ask("What fails, and since when").to_dict("records")
    assert (failure["error_class"], failure["pairs"], failure["nights"]) == ("NotAPictureError", 1, len(nights.reports))
    assert failure["since"] == nights.reports[0].run_id
    assert "text.png" in failure["example"]


def test_the_pair_that_lost_most_comes_first(nights: Nights):
    lost = nights.ask("Which pairs lost most since the night before").set_index("pair_id")
    then, now = nights.find_direction(-2), nights.find_direction(-1)
    expected = (now - then).dropna().sort_values()
    assert lost.index.tolist() == expected.index.tolist()
    assert lost.change.to_numpy() == pytest.approx(expected.to_numpy(), abs=0.0006)


def test_hugging_face_reads_thumbnails_as_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from datasets import Dataset

    urls = stage_run(tmp_path).build().table_urls
    images = Dataset.from_parquet(urls["images"], cache_dir=str(tmp_path / "cache"))
    assert isinstance(images, Dataset)
    with Image.open(images[0]["url"]) as drawn:
        assert np.array_equal(np.asarray(images[0]["thumbnail"]), np.asarray(drawn))
    pairs = Dataset.from_parquet(urls["pairs"], cache_dir=str(tmp_path / "cache"))
    assert isinstance(pairs, Dataset)
    assert [getattr(pairs[0][f"{role}_thumbnail"], "size", None) for role in ("content", "style")] == [(64, 64), (64, 64)]
