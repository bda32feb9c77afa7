"""A run whose adapters are evaluated again trains nothing, leaves the earlier run as it is, and says what it cannot do."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from real_run import Night, write_manifest

from pairlora.bases import load_base
from pairlora.bases.loading import EMBEDDED
from pairlora.errors import ConfigError, StoreError
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.rescoring import Rescoring, open_rescoring
from pairlora.execution.runs import close_run
from pairlora.records import AdapterRecord, RunRecord
from pairlora.report import ReportSummary
from pairlora.store.run_store import RunStore


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder = tmp_path_factory.mktemp("rescoring")
    return Night(load_base("embedded"), write_manifest(folder), str(folder / "store"))


@pytest.fixture(scope="module")
def first(night: Night) -> ReportSummary:
    return night.run()


def rescore(night: Night, scorer: Scorer | None = None, **changes) -> ReportSummary:
    run, plan = open_rescoring(Rescoring(output=night.output, **changes))
    known, night.scorer = night.scorer, scorer or night.scorer
    night.do(run, plan)
    night.scorer = known
    return close_run(run, plan, [])


@pytest.fixture
def manifest_gone(night: Night) -> Iterator[None]:
    """The manifest is not where it was: what is evaluated again is what was planned then."""
    hidden = night.manifest.rename(night.manifest.with_suffix(".hidden"))
    yield
    hidden.rename(night.manifest)


def read(summary: ReportSummary, table: str) -> pd.DataFrame:
    return pd.read_parquet(summary.table_urls[table])


@pytest.mark.usefixtures("manifest_gone")
def test_other_prompts_are_drawn_with_the_adapters_that_are_there(night: Night, first: ReportSummary):
    report = Path(first.report_url).read_bytes()
    again = rescore(night, run_id=first.run_id, prompts=["a flat icon of a rocket", " a flat icon of a fish "])
    assert (again.trained, again.counts, again.run_id != first.run_id) == (0, {"done": 2}, True)
    images = read(again, "images")
    assert set(images.prompt) == {"a flat icon of a rocket", "a flat icon of a fish"}
    assert set(read(again, "pairs").fingerprint) == set(read(first, "pairs").fingerprint)
    assert len(images) == len(read(first, "images"))
    assert Path(first.report_url).read_bytes() == report
    assert f"evaluates the adapters of run <code>{first.run_id}</code> again" in Path(again.report_url).read_text()


@pytest.mark.usefixtures("manifest_gone")
def test_another_clip_scores_the_pictures_that_are_there(night: Night, first: ReportSummary, tmp_path: Path):
    other = copy_clip(tmp_path / "clip")
    again = rescore(night, Scorer(ClipEncoder(str(other)), None), run_id=first.run_id, settings={"evaluate": {"clip": str(other)}})
    assert (again.trained, again.images_drawn, again.counts) == (0, 0, {"reused": 2})
    encoders = {name: set(read(one, "scores").query("metric == 'direction'").encoder) for name, one in (("old", first), ("new", again))}
    assert len(encoders["old"] | encoders["new"]) == 2
    assert set(read(again, "images").image_id) == set(read(first, "images").image_id)
    assert 'id="changes"' not in Path(again.report_url).read_text(), "values of two encoders are not compared"
    record = RunStore(night.output).read_run(again.run_id, RunRecord)
    assert record is not None
    assert (record.rescored, record.config["evaluate"]["clip_revision"]) == (first.run_id, None)


def copy_clip(folder: Path) -> Path:
    """The embedded CLIP that looks at pictures in another size: another encoder by its preprocessing."""
    folder.mkdir()
    for path in (EMBEDDED / "clip").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["image_mean"] = [0.4, 0.4, 0.4]
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_the_next_night_stands_beside_the_night_before_and_not_beside_what_was_evaluated_again(night: Night, first: ReportSummary):
    rescore(night, run_id=first.run_id, prompts=["a flat icon of a rocket"])
    page = Path(night.run().report_url).read_text()
    assert f"Beside run <code>{first.run_id}</code>" in page


def test_a_pair_whose_adapter_is_gone_fails_and_is_not_trained(night: Night, first: ReportSummary):
    fingerprint = read(first, "pairs").set_index("row").loc[1, "fingerprint"]
    record = night.store.read_marker("adapter", str(fingerprint), AdapterRecord)
    assert record is not None
    night.store.drop_marker("adapter", record.fingerprint)
    again = rescore(night, run_id=first.run_id, prompts=["a flat icon of a house"])
    night.store.mark_done("adapter", record.fingerprint, record)
    assert (again.counts, again.trained) == ({"done": 1, "failed": 1}, 0)
    assert [outcome.error_class for outcome in again.failed] == ["MissingAdapterError"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"train": {"steps": 9}}}, "train: `pairlora run` trains by other settings"),
        ({"settings": {"base": {"name": "sdxl"}}}, "base: `pairlora run` trains"),
        ({"settings": {"sample": {"stepz": 9}}}, "sample.stepz"),
        ({"prompts": ["a cat", " a cat"]}, "'a cat' stands in it 2 times"),
        ({"prompts": [" "]}, "is not a list of texts that are not empty"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is_done(night: Night, first: ReportSummary, changes: dict, message: str):
    runs = night.store.list_runs()
    with pytest.raises(ConfigError, match=message):
        open_rescoring(Rescoring(output=night.output, run_id=first.run_id, **changes))
    assert night.store.list_runs() == runs


def test_a_run_that_is_not_there_is_named(night: Night, first: ReportSummary, tmp_path: Path):
    with pytest.raises(StoreError, match=f"no run 'other'; its runs are: {first.run_id}"):
        open_rescoring(Rescoring(output=night.output, run_id="other"))
    with pytest.raises(ConfigError, match="holds no run"):
        open_rescoring(Rescoring(output=str(tmp_path)))


def test_a_base_that_is_another_by_now_is_refused(night: Night, first: ReportSummary):
    record = next(iter(night.store.read_markers("adapter", night.store.list_done("adapter"), AdapterRecord).values()))
    night.store.drop_marker("adapter", record.fingerprint)
    night.store.mark_done("adapter", record.fingerprint, record.model_copy(update={"base_digest": "0" * 64}))
    with pytest.raises(ConfigError, match=r"base 'embedded' is not the one .* not 000000000000"):
        open_rescoring(Rescoring(output=night.output, run_id=first.run_id))
    night.store.drop_marker("adapter", record.fingerprint)
    night.store.mark_done("adapter", record.fingerprint, record)


def test_an_evaluation_that_was_cut_short_goes_on(night: Night, first: ReportSummary):
    rescoring = Rescoring(output=night.output, run_id=first.run_id, prompts=("a flat icon of a bell",))
    assert open_rescoring(rescoring)[1].run_id == open_rescoring(rescoring)[1].run_id
