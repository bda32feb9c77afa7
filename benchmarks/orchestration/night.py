"""One run of the flow on the idle base, in a process of its own, so that its memory is the flow's alone.

    python -m benchmarks.orchestration.night MANIFEST OUTPUT

Prints one line of JSON: seconds of planning, of the report and of the whole flow, and the peak of the process's memory. Workers
are spawned and import this file as well; there it puts the idle base and encoder in place of the real ones.
"""

import json
import re
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
    return {"whole": whole, **clock.seconds, "megabytes": read_peak_megabytes(), "counts": summary.counts}


if __name__ == "__main__":
    print(json.dumps(run_night(sys.argv[1], sys.argv[2])))
