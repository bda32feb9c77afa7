"""A fleet's laws: every shard once, a lost machine costs what it had begun, and what does not get on is given up."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from studios import ROWS, AssetStudio, PairStudio, Studio

from pairlora.config import FleetRun
from pairlora.errors import ConfigError, DispatchError
from pairlora.execution.fleet import Dispatcher, Fleet, Phase
from pairlora.execution.portions import SHARDS_PER_PORTION, Pulse, close_portion, cut_portions, name_portion, open_portion
from pairlora.execution.progress import ProgressEvent
from pairlora.execution.runs import fail_shard
from pairlora.records import Heartbeat, Outcome, Portion, RowPlan
from pairlora.store.run_store import RunStore

SILENCE = 0.5


@pytest.fixture(params=[PairStudio, AssetStudio])
def studio(request: pytest.FixtureRequest, tmp_path: Path) -> Studio:
    """Six rows, a shard each, in three portions; silence is half a second."""
    return request.param(tmp_path, {"portions": 3, "retries": 1, "silence_seconds": SILENCE})


Fate = Callable[["Machines", Portion], Phase]


class Machines(Dispatcher):
    """Machines without models: what becomes of a portion there is its fate, and the last fate is that of all further ones."""

    def __init__(self, studio: Studio, plan: RowPlan, *fates: Fate):
        self.studio, self.plan, self.store = studio, plan, studio.store
        self._fates = list(fates)
        self.begun: dict[str, Portion] = {}
        self.phases: dict[str, Phase] = {}
        self.cancelled: list[str] = []
        self.unanswered = 0

    def start(self, run: FleetRun, portion: Portion) -> str:
        self.begun[portion.name] = portion
        fate = self._fates.pop(0) if len(self._fates) > 1 else self._fates[0]
        self.phases[portion.name] = fate(self, portion)
        return portion.name

    def look(self, ids: Sequence[str]) -> dict[str, Phase]:
        if self.unanswered:
            self.unanswered -= 1
            time.sleep(SILENCE)
            raise DispatchError("no answer")
        return {name: self.phases[name] for name in ids}

    def find(self, run_id: str) -> dict[str, Portion]:
        return {name: portion for name, portion in self.begun.items() if self.phases[name] in ("waiting", "starting", "running")}

    def cancel(self, process: str) -> None:
        self.cancelled.append(process)

    def declare_lost(self, process: str) -> None:
        self.phases[process] = "ended"

    def finish(self, portion: Portion, most: int = ROWS) -> None:
        """Mark rows of a portion as finished."""
        left = [job.row for shard in self.plan.shards if shard.name in portion.shards for job in shard.jobs]
        self.studio.finish(self.plan, left, most)

    def list_begun(self) -> list[str]:
        return [shard for portion in self.begun.values() for shard in portion.shards]


def do_all(machines: Machines, portion: Portion) -> Phase:
    machines.finish(portion)
    close_portion(machines.studio.run, portion, [])
    return "ended"


def die_after_one(machines: Machines, portion: Portion) -> Phase:
    machines.finish(portion, most=1)
    return "ended"


def die_at_once(machines: Machines, portion: Portion) -> Phase:
    return "ended"


def fall_silent(machines: Machines, portion: Portion) -> Phase:
    machines.store.write_heartbeat(portion.run_id, portion.name, Heartbeat(count=1))
    return "running"


def wait(machines: Machines, portion: Portion) -> Phase:
    return "waiting"


def be_cancelled(machines: Machines, portion: Portion) -> Phase:
    return "cancelled"


def interrupt(machines: Machines, portion: Portion) -> Phase:
    raise KeyboardInterrupt


def send_out(studio: Studio, *fates: Fate) -> tuple[Machines, list[Outcome]]:
    """A fleet whose portions meet these fates, one after another, to its end."""
    plan = studio.open()
    machines = Machines(studio, plan, *fates)
    return machines, Fleet(studio.kind, studio.run, plan, machines, poll=0.01).do_portions()


def count_done(studio: Studio) -> int:
    return len(studio.store.list_done(studio.kind.marker))


@pytest.mark.parametrize(("shards", "portions", "made"), [(7, 3, 3), (2, 3, 2), (0, 3, 0), (2 * SHARDS_PER_PORTION + 1, 2, 3)])
def test_every_shard_is_in_one_portion_and_none_is_too_large(shards: int, portions: int, made: int):
    names = [f"shard-{number}" for number in range(shards)]
    cut = cut_portions("run", names, portions)
    assert sorted(name for portion in cut for name in portion.shards) == sorted(names)
    sizes = [len(portion.shards) for portion in cut]
    assert len(sizes) == made
    assert max(sizes, default=0) <= SHARDS_PER_PORTION
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_every_shard_is_begun_once_where_nothing_is_lost(studio: Studio):
    machines, lost = send_out(studio, do_all)
    assert lost == []
    assert sorted(machines.list_begun()) == sorted(shard.name for shard in machines.plan.shards)


@pytest.mark.parametrize("fate", [die_after_one, fall_silent])
def test_a_lost_machine_costs_what_it_had_not_finished(studio: Studio, fate: Fate):
    machines, lost = send_out(studio, fate, do_all)
    assert (lost, count_done(studio)) == ([], ROWS)
    first, *others = machines.begun.values()
    again = [portion for portion in others if set(portion.shards) & set(first.shards)]
    assert [len(portion.shards) for portion in again] == [1 if fate is die_after_one else 2]
    assert "running" not in machines.phases.values()


def test_machines_that_get_on_are_never_given_up_however_often_they_die(studio: Studio):
    machines, lost = send_out(studio, die_after_one)
    assert (lost, count_done(studio)) == ([], ROWS)
    assert len(machines.begun) == ROWS


def test_a_portion_that_gets_nowhere_is_given_up_and_its_rows_say_why(studio: Studio):
    machines, lost = send_out(studio, die_at_once, do_all, do_all, die_at_once)
    assert count_done(studio) == ROWS - 2
    assert {(outcome.status, outcome.error_class) for outcome in lost} == {("failed", "LostPortionError")}
    assert "2 times" in lost[0].error_message
    first = next(iter(machines.begun.values()))
    given_up = [fail_shard(shard, Exception())[0].pair_id for shard in machines.plan.shards if shard.name in first.shards]
    assert sorted(outcome.pair_id for outcome in lost) == sorted(given_up)


def test_a_cancelled_portion_is_not_begun_again(studio: Studio):
    machines, lost = send_out(studio, be_cancelled, do_all)
    assert [outcome.status for outcome in lost] == ["cancelled", "cancelled"]
    assert len(machines.begun) == 3


def test_the_next_process_takes_over_what_goes_on(studio: Studio):
    plan = studio.open()
    machines = Machines(studio, plan, fall_silent, do_all)
    going_on = cut_portions(plan.run_id, [shard.name for shard in plan.shards], 3)[0]
    machines.start(studio.run, going_on)

    def end_well(portion: Portion) -> None:
        do_all(machines, portion)
        machines.phases[going_on.name] = "ended"

    fleet = Fleet(studio.kind, studio.run, studio.open(), machines, [lambda event: end_well(going_on)], poll=0.01)
    assert fleet.do_portions() == []
    assert sorted(machines.list_begun()) == sorted(shard.name for shard in plan.shards)


def test_no_machine_counts_as_lost_while_nobody_answers(studio: Studio):
    plan = studio.open()
    machines = Machines(studio, plan, fall_silent)

    def end_well(event: ProgressEvent) -> None:
        for portion in machines.begun.values():
            do_all(machines, portion)

    machines.unanswered = 3
    assert Fleet(studio.kind, studio.run, plan, machines, [end_well], poll=0.01).do_portions() == []
    assert len(machines.begun) == 3


def test_a_portion_that_no_machine_takes_is_waited_for_and_named(studio: Studio, caplog: pytest.LogCaptureFixture):
    plan = studio.open()
    machines = Machines(studio, plan, wait, do_all)

    def free_a_machine() -> None:
        first = next(iter(machines.begun.values()))
        machines.phases[first.name] = do_all(machines, first)

    threading.Timer(2 * SILENCE, free_a_machine).start()
    assert Fleet(studio.kind, studio.run, plan, machines, poll=0.01).do_portions() == []
    assert len(machines.begun) == 3
    named = [record.message for record in caplog.records if "are workers of its pool running?" in record.message]
    assert [message.partition(" ")[0] for message in named] == [next(iter(machines.begun))]


def test_an_interrupt_cancels_what_was_begun(studio: Studio):
    plan = studio.open()
    machines = Machines(studio, plan, fall_silent, interrupt)
    with pytest.raises(KeyboardInterrupt):
        Fleet(studio.kind, studio.run, plan, machines, poll=0.01).do_portions()
    assert len(machines.cancelled) == 1


def test_a_machine_finds_in_the_store_what_is_left_of_its_portion(studio: Studio):
    plan = studio.open()
    (portion,) = cut_portions(plan.run_id, [shard.name for shard in plan.shards[:3]], 1)
    assert open_portion(studio.kind, studio.run, portion).shards == plan.shards[:3]
    studio.finish(plan, [plan.jobs[0].row])
    assert open_portion(studio.kind, studio.run, portion).shards == plan.shards[1:3]


def test_a_machine_with_another_base_refuses_the_portion(studio: Studio, tmp_path: Path):
    plan = studio.open()
    portion = name_portion(plan.run_id, [shard.name for shard in plan.shards])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_bytes(b"weights of another base")
    other = studio.run.model_copy(update={"base": studio.run.base.model_copy(update={"name": str(tmp_path / "other")})})
    with pytest.raises(ConfigError, match="otherwise here than was planned"):
        open_portion(studio.kind, other, portion)


def test_a_machine_of_another_version_refuses_the_portion(studio: Studio, monkeypatch: pytest.MonkeyPatch):
    plan = studio.open()
    portion = name_portion(plan.run_id, [plan.shards[0].name])
    monkeypatch.setattr(*studio.version, -1)
    with pytest.raises(ConfigError, match=f"{plan.jobs[0].row_id} would be .* the version of pairlora"):
        open_portion(studio.kind, studio.run, portion)


def test_a_plan_that_this_version_cannot_read_is_refused_with_the_remedy(studio: Studio):
    plan = studio.open()
    studio.write_foreign_plan(plan)
    with pytest.raises(ConfigError, match=r"planned by another version of pairlora.*give all machines the same image"):
        open_portion(studio.kind, studio.run, name_portion(plan.run_id, [plan.shards[0].name]))


def test_a_portion_of_a_plan_that_was_replaced_is_refused(studio: Studio):
    plan = studio.open()
    with pytest.raises(ConfigError, match="planned anew"):
        open_portion(studio.kind, studio.run, name_portion(plan.run_id, ["shard-0000-00000000"]))


def test_a_process_gives_signs_of_life_until_it_says_that_it_is_over(studio: Studio):
    portion = name_portion("20260102T030405Z-abcdef", ["shard"])
    store = RunStore(studio.run.output.url)

    def read() -> Heartbeat | None:
        return store.read_heartbeats(portion.run_id, [portion.name], Heartbeat).get(portion.name)

    seen = set()
    with Pulse(studio.run, portion) as pulse:
        pulse(ProgressEvent("pairs", 2, 4, "pairs", "shard"))
        deadline = time.monotonic() + 30
        while len(seen) < 3 and time.monotonic() < deadline:
            seen.add(read())
            time.sleep(SILENCE / 20)
    assert len(seen - {None}) >= 2
    assert (beat := read()) is not None
    assert (beat.settled, beat.closed) == (2, False)
    close_portion(studio.run, portion, [])
    assert (beat := read()) is not None
    assert beat.closed


def test_rows_of_a_shard_that_was_lost_on_its_machine_stand_in_the_report_with_their_error(studio: Studio):
    plan = studio.open()
    portion = name_portion(plan.run_id, [plan.shards[0].name])
    close_portion(studio.run, portion, fail_shard(plan.shards[0], DispatchError("the worker died")))
    summary = studio.close(plan, [])
    assert [(outcome.pair_id, outcome.error_message) for outcome in summary.failed] == [(plan.jobs[0].row_id, "the worker died")]


def test_a_row_that_was_lost_on_a_machine_and_is_found_finished_by_the_next_fleet_did_not_fail(studio: Studio):
    plan = studio.open()
    portion = name_portion(plan.run_id, [plan.shards[0].name])
    close_portion(studio.run, portion, fail_shard(plan.shards[0], DispatchError("the worker died")))
    studio.finish(plan, [plan.jobs[0].row])  # its marker was written before that
    summary = studio.close(studio.open(), [])
    assert (summary.counts["reused"], summary.counts.get("failed", 0)) == (1, 0)


def test_progress_names_what_a_row_is(studio: Studio):
    events: list[ProgressEvent] = []
    plan = studio.open()
    Fleet(studio.kind, studio.run, plan, Machines(studio, plan, do_all), [events.append], poll=0.01).do_portions()
    assert {event.unit for event in events} == {f"{studio.kind.noun}s"}
    assert sum(event.done for event in events) == ROWS
