"""A catalogue over which flow and workers are killed: every asset is drawn, once, and nothing is left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from chaos import DEVICES, NIGHT_SECONDS, Night, Task, describe_settings, open_night, read_table, write_studio
from tiny_base import make_picture

from pairlora.store.run_store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.s3, pytest.mark.timeout(1800)]
SHARD_ASSETS = 2


def write_catalogue(folder: Path, assets: int) -> None:
    """Pictures that all differ, and the settings of a run over them."""
    rows = []
    for number in range(assets):
        make_picture(100 + number).save(folder / f"asset {number}.png")
        rows.append({"asset_id": f"asset {number}", "image": f"asset {number}.png", "prompt": "a fox"})
    (folder / "catalogue.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings: dict[str, Any] = describe_settings(folder)
    for section in ("manifest", "train"):
        del settings[section]
    (folder / "catalogue.yaml").write_text(json.dumps(settings | {"shard_assets": SHARD_ASSETS, "entry": {"refinements": 1}}))


def run(night: Night, task: Task) -> dict[str, Any]:
    """A task to its end, undisturbed."""
    night.task = task
    flow = night.begin()
    assert flow.process.wait(NIGHT_SECONDS) == 0
    return json.loads(flow.summary.read_text())


@pytest.mark.parametrize(("count", "kills"), [(40, 3), pytest.param(200, 12, marks=pytest.mark.chaos)])
def test_kills_over_a_catalogue_lose_no_asset_and_the_next_run_draws_nothing(
    count: int, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_studio(tmp_path, 1)
    write_catalogue(tmp_path, count)
    task = Task("stylize", "catalogue.jsonl", "catalogue.yaml", ("--adapter", "pair-0"), "asset", count, ("flow", "worker", "worker"))
    with open_night(tmp_path, kills, monkeypatch) as night:
        run(night, Task())
        night.task = task
        summary = night.pass_through(kills)
        store = RunStore(night.url)
        marked = [len(store.list_done(kind)) for kind in ("asset", "styled")]
        assets, styled = (read_table(summary, name) for name in ("assets", "styled"))
        again = run(night, task)
    assert (len(night.killed), night.orphans) == (kills, [])
    assert set(assets.status) <= {"done", "reused"}
    assert [len(assets), len(styled)] == marked == [count, 2 * count]
    assert int((assets.attempts - 1).clip(lower=0).sum()) <= 2 * kills * DEVICES
    assert (again["counts"], again["images_drawn"]) == ({"reused": count}, 0)
