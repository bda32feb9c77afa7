"""A forgotten picture leaves nothing in the store but a tombstone, and is not trained on again; neighbours are unharmed."""

import io
import json
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from staged_run import Staged, stage_night
from tiny_base import make_picture
from typer.testing import CliRunner

from pairlora.cli.main import app
from pairlora.config import RunConfig
from pairlora.execution.forgetting import digest_asset, find_derived, forget_derived
from pairlora.execution.planning import plan_run
from pairlora.images import decode_picture
from pairlora.records import AdapterRecord
from pairlora.report.thumbnails import shrink
from pairlora.review.decisions import ReviewDesk
from pairlora.store.objects import open_objects
from pairlora.store.run_store import RunStore

FOLDERS = ("done", "adapters", "images", "baselines", "checkpoints", "reviews", "runs", "tombstones")


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("s3_url") if request.param == "s3" else str(tmp_path / "store")


def stage(folder: Path, url: str, night: int = 0) -> Staged:
    """A night whose jobs know the digests of their pictures, with its report."""
    staged = stage_night(folder, night, pairs=("dog", "cat"))
    store = RunStore(url)
    if store.url != staged.store.url:  # the same payloads and markers, carried to the other place
        for name in FOLDERS:
            for path in sorted((folder / "store" / name).rglob("*")):
                if path.is_file():
                    store._objects.write(path.relative_to(folder / "store").as_posix(), path.read_bytes())
        staged.store = store
    for index, job in enumerate(staged.jobs):
        digests = {f"{role}_sha256": digest_asset(getattr(job.pair, role)) for role in ("content", "style")}
        staged.jobs[index] = job.model_copy(update=digests)
        store.put_checkpoint(job.fingerprint, b"half an adapter")
    staged.build()
    return staged


def read_all(url: str) -> Iterator[tuple[str, bytes]]:
    """Every object of a store, tables as the bytes of their cells."""
    objects = open_objects(url, {})
    for key in (key for folder in FOLDERS for key in objects.keys(folder)):
        data = objects.read(key) or b""
        yield key, repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode() if key.endswith(".parquet") else data


def find_traces(url: str, *traces: bytes) -> set[str]:
    """Keys of objects that hold any of these bytes: as they are, as a data URL has them, or as a cell shows them."""
    forms = [form for trace in traces for form in (trace, b64encode(trace), repr(trace).encode()[2:-1])]
    return {key for key, data in read_all(url) if any(form in data or form in key.encode() for form in forms)}


def list_traces(staged: Staged, pair_id: str) -> list[bytes]:
    """What a pair leaves: its small pictures, those drawn for it, its fingerprint, and the names of its files."""
    (job,) = [job for job in staged.jobs if job.pair.pair_id == pair_id]
    urls = (job.pair.content, job.pair.style)
    given = [shrink(decode_picture(Path(one).read_bytes(), staged.run.pictures, name=one)).data for one in urls]
    objects = open_objects(staged.store.url, {})
    derived = find_derived(staged.store, job.style_sha256)
    drawn = [data for image in derived.images if (data := objects.read(image.url)) is not None]
    return [*given, *drawn, job.fingerprint.encode(), *(Path(one).name.encode() for one in urls)]


def test_nothing_of_a_forgotten_picture_is_left(tmp_path: Path, url: str):
    first, second = stage(tmp_path, url), stage(tmp_path, url, night=1)
    ReviewDesk(second.store).decide("dog", "accept", reviewer="anna", comment="lovely paws")
    asset, traces = digest_asset(str(tmp_path / "dog-style.png")), list_traces(second, "dog")
    kept = list_traces(second, "cat")
    places = {key.partition("/")[0] for key in find_traces(url, *traces)}
    assert places == {"done", "adapters", "images", "checkpoints", "reviews", "runs"}
    forget_derived(first.store, find_derived(first.store, asset))
    assert find_traces(url, *traces, b"lovely paws") == set()
    assert find_traces(url, asset.encode()) == {f"tombstones/{asset[:2]}/{asset}.json"}
    assert {key.partition("/")[0] for key in find_traces(url, *kept)} == {"done", "adapters", "images", "checkpoints", "runs"}
    for staged in (first, second):
        objects = open_objects(url, {})
        table = pq.read_table(io.BytesIO(objects.read(f"runs/{staged.run_id}/report/pairs.parquet") or b""))
        assert table["pair_id"].to_pylist() == ["cat"]
        assert objects.read(f"runs/{staged.run_id}/report/pairs/dog.html") is None


def test_a_dry_run_changes_nothing_and_a_second_forgetting_finds_nothing(tmp_path: Path):
    staged = stage(tmp_path, str(tmp_path / "store"))
    picture = str(tmp_path / "dog-content.png")
    before = dict(read_all(staged.store.url))

    def call(*flags: str) -> str:
        return CliRunner().invoke(app, ["forget", "--asset", picture, "-o", staged.store.url, *flags], catch_exceptions=False).output

    assert "would remove 1 pairs, 1 adapters, 8 pictures" in call("--dry-run")
    assert dict(read_all(staged.store.url)) == before
    assert "removed 1 pairs, 1 adapters, 8 pictures" in call()
    assert "removed 0 pairs, 0 adapters, 0 pictures, 0 scores, 0 reports" in call()
    assert json.loads(call("--json"))["sha256"] == sha256(Path(picture).read_bytes()).hexdigest()


def test_of_a_ground_truth_the_scores_go_and_the_adapter_stays(tmp_path: Path):
    staged = stage(tmp_path, str(tmp_path / "store"))
    prompt = staged.jobs[0].pair.prompts[0]
    truth = digest_asset(str(tmp_path / "dog-truth.png"))
    staged.jobs[0] = staged.jobs[0].model_copy(update={"truth_sha256": {prompt: truth}})
    staged.build()
    derived = find_derived(staged.store, truth)
    assert (derived.adapters, derived.images) == ((), ())
    assert len(derived.scores) == 12
    forget_derived(staged.store, derived)
    assert staged.store.list_done("adapter") == {job.fingerprint for job in staged.jobs}
    assert len(staged.store.list_done("score")) == 12


def test_a_forgotten_picture_makes_its_row_invalid_whatever_its_name(tmp_path: Path):
    for name in ("a", "b", "c"):
        make_picture(ord(name)).save(tmp_path / f"{name}.png")
    row = {"content_prompt": "a fox", "style_template": "{prompt} in ink", "content": "a.png"}
    (tmp_path / "renamed.png").write_bytes((tmp_path / "b.png").read_bytes())
    rows = [row | {"pair_id": "one", "style": "c.png"}, row | {"pair_id": "two", "style": "renamed.png"}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = RunConfig.model_validate({"manifest": str(tmp_path / "pairs.jsonl"), "output": {"url": str(tmp_path / "out")}})
    store = RunStore(run.output.url)
    forget_derived(store, find_derived(store, digest_asset(str(tmp_path / "b.png"))))
    plan = plan_run(run, store, "base")
    assert [job.pair.pair_id for job in plan.jobs] == ["one"]
    (refused,) = plan.unplanned
    assert (refused.row, refused.status, refused.error_class) == (2, "invalid", "ForgottenPictureError")
    assert refused.error_message == "row 2, style: the picture was forgotten; take the row out of the manifest"


def test_an_adapter_that_no_plan_names_any_more_is_found_by_its_marker(tmp_path: Path):
    staged = stage(tmp_path, str(tmp_path / "store"))
    asset = sha256(b"a picture that was replaced").hexdigest()
    (record,) = staged.store.read_markers("adapter", [staged.jobs[0].fingerprint], AdapterRecord).values()
    staged.store.mark_done("adapter", "0" * 64, record.model_copy(update={"fingerprint": "0" * 64, "pictures": ("other", asset)}))
    derived = find_derived(staged.store, asset)
    assert (derived.adapters, derived.pairs) == (("0" * 64,), {})
    forget_derived(staged.store, derived)
    assert staged.store.list_done("adapter") == {job.fingerprint for job in staged.jobs}
