"""A fleet's laws: every shard once, a lost machine costs what it had begun, and what does not get on is given up."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tiny_base import make_picture

from pairlora.config import RunConfig, read_config
from pairlora.errors import ConfigError, DispatchError
from pairlora.execution.finished import identify_pair
from pairlora.execution.fleet import Dispatcher, Fleet, Phase
from pairlora.execution.portions import SHARDS_PER_PORTION, Pulse, close_portion, cut_portions, name_portion, open_portion
from pairlora.execution.progress import ProgressEvent
from pairlora.execution.runs import close_run, fail_shard, open_run
from pairlora.records import FinishedPair, Heartbeat, Outcome, Plan, Portion
from pairlora.store.run_store import RunStore

PAIRS = 6
SILENCE = 0.5


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    """Six pairs, a shard each, in three portions; silence is half a second."""
    make_picture(0).save(tmp_path / "content.png")
    rows = []
    for number in range(PAIRS):
        make_picture(1 + number).save(tmp_path / f"{number}.png")
        rows.append({"pair_id": f"pair-{number}", "content": "content.png", "style": f"{number}.png", "content_prompt": "a fox"})
    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(row | {"style_template": "{prompt} in ink"}) for row in rows))
    settings = {"manifest": str(tmp_path / "pairs.jsonl"), "output": {"url": str(tmp_path / "out")}, "execution": {"pack_size": 1}}
    return read_config(settings | {"fleet": {"portions": 3, "retries": 1, "silence_seconds": SILENCE}})


Fate = Callable[["Machines", Portion], Phase]


class Machines(Dispatcher):
    """Machines without models: what becomes of a portion there is its fate, and the last fate is that of all further ones."""

    def __init__(self, run: RunConfig, plan: Plan, *fates: Fate):
        self.run, self.plan, self.store = run, plan, RunStore(run.output.url)
        self._fates = list(fates)
        self.begun: dict[str, Portion] = {}
        self.phases: dict[str, Phase] = {}
        self.cancelled: list[str] = []
        self.unanswered = 0

    def start(self, run: RunConfig, portion: Portion) -> str:
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

    def finish(self, portion: Portion, most: int = PAIRS) -> None:
        """Mark pairs of a portion as trained, drawn and scored."""
        left = [job for shard in self.plan.shards if shard.name in portion.shards for job in shard.jobs]
        keys = [identify_pair(job, self.run, self.plan.base_digest) for job in left]
        undone = [key for key in keys if key not in self.store.list_done("pair")]
        for key in undone[:most]:
            self.store.mark_done("pair", key, FinishedPair(fingerprint="", references=(), sizes={}))

    def list_begun(self) -> list[str]:
        return [shard for portion in self.begun.values() for shard in portion.shards]


def do_all(machines: Machines, portion: Portion) -> Phase:
    machines.finish(portion)
    close_portion(machines.run, portion, [])
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


def send_out(run: RunConfig, *fates: Fate) -> tuple[Machines, list[Outcome]]:
    """A fleet whose portions meet these fates, one after another, to its end."""
    plan = open_run(run)
    machines = Machines(run, plan, *fates)
    return machines, Fleet(run, plan, machines, poll=0.01).do_portions()


def count_done(run: RunConfig) -> int:
    return len(RunStore(run.output.url).list_done("pair"))


@pytest.mark.parametrize(("shards", "portions", "made"), [(7, 3, 3), (2, 3, 2), (0, 3, 0), (2 * SHARDS_PER_PORTION + 1, 2, 3)])
def test_every_shard_is_in_one_portion_and_none_is_too_large(shards: int, portions: int, made: int):
    names = [f"shard-{number}" for number in range(shards)]
    cut = cut_portions("run", names, portions)
    assert sorted(name for portion in cut for name in portion.shards) == sorted(names)
    sizes = [len(portion.shards) for portion in cut]
    assert len(sizes) == made
    assert max(sizes, default=0) <= SHARDS_PER_PORTION
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_every_shard_is_begun_once_where_nothing_is_lost(run: RunConfig):
    machines, lost = send_out(run, do_all)
    assert lost == []
    assert sorted(machines.list_begun()) == sorted(shard.name for shard in machines.plan.shards)


@pytest.mark.parametrize("fate", [die_after_one, fall_silent])
def test_a_lost_machine_costs_what_it_had_not_finished(run: RunConfig, fate: Fate):
    machines, lost = send_out(run, fate, do_all)
    assert (lost, count_done(run)) == ([], PAIRS)
    first, *others = machines.begun.values()
    again = [portion for portion in others if set(portion.shards) & set(first.shards)]
    assert [len(portion.shards) for portion in again] == [1 if fate is die_after_one else 2]
    assert "running" not in machines.phases.values()


def test_machines_that_get_on_are_never_given_up_however_often_they_die(run: RunConfig):
    machines, lost = send_out(run, die_after_one)
    assert (lost, count_done(run)) == ([], PAIRS)
    assert len(machines.begun) == PAIRS


def test_a_portion_that_gets_nowhere_is_given_up_and_its_pairs_say_why(run: RunConfig):
    machines, lost = send_out(run, die_at_once, do_all, do_all, die_at_once)
    assert count_done(run) == PAIRS - 2
    assert {(outcome.status, outcome.error_class) for outcome in lost} == {("failed", "LostPortionError")}
    assert "2 times" in lost[0].error_message
    first = next(iter(machines.begun.values()))
    given_up = [fail_shard(shard, Exception())[0].pair_id for shard in machines.plan.shards if shard.name in first.shards]
    assert sorted(outcome.pair_id for outcome in lost) == sorted(given_up)


def test_a_cancelled_portion_is_not_begun_again(run: RunConfig):
    machines, lost = send_out(run, be_cancelled, do_all)
    assert [outcome.status for outcome in lost] == ["cancelled", "cancelled"]
    assert len(machines.begun) == 3


def test_the_next_process_takes_over_what_goes_on(run: RunConfig):
    plan = open_run(run)
    machines = Machines(run, plan, fall_silent, do_all)
    going_on = cut_portions(plan.run_id, [shard.name for shard in plan.shards], 3)[0]
    machines.start(run, going_on)

    def end_well(portion: Portion) -> None:
        do_all(machines, portion)
        machines.phases[going_on.name] = "ended"

    fleet = Fleet(run, open_run(run), machines, [lambda event: end_well(going_on)], poll=0.01)
    assert fleet.do_portions() == []
    assert sorted(machines.list_begun()) == sorted(shard.name for shard in plan.shards)


def test_no_machine_counts_as_lost_while_nobody_answers(run: RunConfig):
    plan = open_run(run)
    machines = Machines(run, plan, fall_silent)

    def end_well(event: ProgressEvent) -> None:
        for portion in machines.begun.values():
            do_all(machines, portion)

    machines.unanswered = 3
    assert Fleet(run, plan, machines, [end_well], poll=0.01).do_portions() == []
    assert len(machines.begun) == 3


def test_a_portion_that_no_machine_takes_is_waited_for_and_named(run: RunConfig, caplog: pytest.LogCaptureFixture):
    plan = open_run(run)
    machines = Machines(run, plan, wait, do_all)

    def free_a_machine() -> None:
        first = next(iter(machines.begun.values()))
        machines.phases[first.name] = do_all(machines, first)

    threading.Timer(2 * SILENCE, free_a_machine).start()
    assert Fleet(run, plan, machines, poll=0.01).do_portions() == []
    assert len(machines.begun) == 3
    named = [record.message for record in caplog.records if "are workers of its pool running?" in record.message]
    assert [message.partition(" ")[0] for message in named] == [next(iter(machines.begun))]


def test_an_interrupt_cancels_what_was_begun(run: RunConfig):
    plan = open_run(run)
    machines = Machines(run, plan, fall_silent, interrupt)
    with pytest.raises(KeyboardInterrupt):
        Fleet(run, plan, machines, poll=0.01).do_portions()
    assert len(machines.cancelled) == 1


def test_a_machine_finds_in_the_store_what_is_left_of_its_portion(run: RunConfig):
    plan = open_run(run)
    (portion,) = cut_portions(plan.run_id, [shard.name for shard in plan.shards[:3]], 1)
    assert open_portion(run, portion).shards == plan.shards[:3]
    machines = Machines(run, plan, do_all)
    machines.store.mark_done("adapter", plan.jobs[0].fingerprint, Heartbeat(count=0))
    key = identify_pair(plan.jobs[0], run, plan.base_digest)
    machines.store.mark_done("pair", key, FinishedPair(fingerprint=plan.jobs[0].fingerprint, references=(), sizes={}))
    assert open_portion(run, portion).shards == plan.shards[1:3]


def test_a_machine_with_another_base_refuses_the_portion(run: RunConfig, tmp_path: Path):
    plan = open_run(run)
    portion = name_portion(plan.run_id, [shard.name for shard in plan.shards])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_bytes(b"weights of another base")
    other = run.model_copy(update={"base": run.base.model_copy(update={"name": str(tmp_path / "other")})})
    with pytest.raises(ConfigError, match="trained otherwise here"):
        open_portion(other, portion)


def test_a_portion_of_a_plan_that_was_replaced_is_refused(run: RunConfig):
    plan = open_run(run)
    with pytest.raises(ConfigError, match="planned anew"):
        open_portion(run, name_portion(plan.run_id, ["shard-0000-00000000"]))


def test_a_process_gives_signs_of_life_until_it_says_that_it_is_over(run: RunConfig):
    portion = name_portion("20260102T030405Z-abcdef", ["shard"])
    store = RunStore(run.output.url)

    def read() -> Heartbeat | None:
        return store.read_heartbeats(portion.run_id, [portion.name], Heartbeat).get(portion.name)

    seen = set()
    with Pulse(run, portion) as pulse:
        pulse(ProgressEvent("pairs", 2, 4, "pairs", "shard"))
        deadline = time.monotonic() + 30
        while len(seen) < 3 and time.monotonic() < deadline:
            seen.add(read())
            time.sleep(SILENCE / 20)
    assert len(seen - {None}) >= 2
    assert (beat := read()) is not None
    assert (beat.settled, beat.closed) == (2, False)
    close_portion(run, portion, [])
    assert (beat := read()) is not None
    assert beat.closed


def test_pairs_of_a_shard_that_was_lost_on_its_machine_are_rows_with_their_error(run: RunConfig):
    plan = open_run(run)
    portion = name_portion(plan.run_id, [plan.shards[0].name])
    close_portion(run, portion, fail_shard(plan.shards[0], DispatchError("the worker died")))
    summary = close_run(run, plan, [])
    assert [(outcome.pair_id, outcome.error_message) for outcome in summary.failed] == [(plan.jobs[0].pair.pair_id, "the worker died")]
