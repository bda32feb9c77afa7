"""One run of the flow on the idle base, in a process of its own, so that its memory is the flow's alone.

    python -m benchmarks.orchestration.night MANIFEST OUTPUT [plan]

Prints one line of JSON: seconds of planning, of the report and of the whole flow, and the peak of the process's memory; with `plan`
it only opens the run. Workers
are spawned and import this file as well; there it puts the idle base and encoder in place of the real ones.
"""

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.orchestration.settings import describe_run

if __name__ == "__mp_main__":
    import pairlora.bases
    import pairlora.evaluation.encoders
    from benchmarks.orchestration.idle import IdleEncoder, load_idle_base

    pairlora.bases.load_base = load_idle_base
    pairlora.evaluation.encoders.ClipEncoder = IdleEncoder


def read_peak_megabytes() -> float:
    """Most memory that this process had at one time, by the kernel's account."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def read_cpu_seconds() -> float:
    """Of this process and of workers that have ended, wherever else the machine was busy."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Clock:
    """Seconds that named functions took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            started = time.monotonic()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

        return run


def run_night(manifest: str, output: str) -> dict[str, Any]:
    """The flow as `pairlora run` loads it, timed."""
    from pairlora.cli.main import load_flow
    from pairlora.config import RunConfig
    from pairlora.execution import runs

    clock = Clock()
    runs.open_run, runs.close_run = clock.timed("plan", runs.open_run), clock.timed("report", runs.close_run)
    customize_pairs = load_flow("customize", "customize_pairs")
    started = time.monotonic()
    summary = customize_pairs(RunConfig.model_validate(describe_run(manifest, output)))
    whole = time.monotonic() - started
    return {"whole": whole, **clock.seconds, "cpu": read_cpu_seconds(), "megabytes": read_peak_megabytes(), "counts": summary.counts}


def plan_night(manifest: str, output: str) -> dict[str, Any]:
    """What is done before any worker starts: the manifest read, pictures digested, the plan written, the store listed."""
    from pairlora.config import RunConfig
    from pairlora.execution.runs import open_run

    started = time.monotonic()
    plan = open_run(RunConfig.model_validate(describe_run(manifest, output)))
    taken = time.monotonic() - started
    return {"whole": taken, "cpu": read_cpu_seconds(), "megabytes": read_peak_megabytes(), "shards": len(plan.shards)}


if __name__ == "__main__":
    do = plan_night if sys.argv[3:] == ["plan"] else run_night
    print(json.dumps(do(sys.argv[1], sys.argv[2])))
