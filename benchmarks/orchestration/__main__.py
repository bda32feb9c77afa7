"""What a run costs beside the models: overhead per pair, memory of the flow's process, listing, planning, on a folder and on S3.

    python -m benchmarks.orchestration [--pairs 100,1000,10000] [--s3 100,1000] [--rows 100000]

Base and encoder do nothing; everything else is real: Prefect, two worker processes, the store, markers, tables and pages. Every night is
a process of its own. Ends with lines `FIGURE <name> <value> <target> <ok|short>`.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.figures import print_figure
from benchmarks.orchestration.settings import write_manifest
from pairlora.store.run_store import RunStore

DEVICES = 2
KINDS = ("adapter", "image", "score", "baseline", "prefix", "pair")
MOST_MS, MOST_MEGABYTES, MOST_GROWTH = 15, 600, 1.3
MOST_PLAN_SECONDS, MOST_PLAN_MEGABYTES = 300, 1500


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", default="100,1000,10000", help="pairs of each night on a folder")
    parser.add_argument("--s3", default="100,1000", help="pairs of each night on S3; empty for none")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the manifest that is only planned; 0 for none")
    parser.add_argument("--folder", type=Path, default=Path("build/orchestration"))
    return parser.parse_args()


def call(*arguments: str) -> dict[str, Any]:
    """One night in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.orchestration.night", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the night failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_listing(output: str) -> tuple[float, int]:
    """Seconds to list all markers, and how many there are."""
    store = RunStore(output)
    store.list_runs()  # the first call of a bucket imports its driver
    started = time.monotonic()
    count = sum(len(store.list_done(kind)) for kind in KINDS)
    return time.monotonic() - started, count


def measure_night(folder: Path, count: int, output: str) -> dict[str, Any]:
    """A night of `count` new pairs, and the same manifest again with everything done."""
    manifest = str(write_manifest(folder / str(count), count))
    night = call(manifest, output)
    again = call(manifest, output)
    seconds, markers = measure_listing(output)
    overhead = night["whole"] - night["report"]
    row = {
        "ms a pair": 1e3 * overhead / count,
        "cpu ms a pair": 1e3 * night["cpu"] / count,
        "plan ms": 1e3 * night["plan"] / count,
        "report ms": 1e3 * night["report"] / count,
        "again ms": 1e3 * again["whole"] / count,
        "MB": night["megabytes"],
        "listing s": seconds,
        "markers": markers,
    }
    place = output.partition("://")[0] if "://" in output else "folder"
    described = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
    print(f"{place:6} {count:6} pairs ({night['counts']}): {described}  load {os.getloadavg()[0]:.1f}", flush=True)
    return row


@contextmanager
def running_prefect(folder: Path) -> Iterator[None]:
    """A Prefect server with a database of its own, which all nights use: at a desk each would start one and end it."""
    import httpx

    from tests.conftest import free_ports

    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/api"
    private = os.environ | {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_API_URL": url}
    command = [Path(sys.executable).with_name("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    folder.mkdir(parents=True)
    log = folder / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=private, start_new_session=True, stdout=output, stderr=output) as server,
        patch.dict(os.environ, private),
    ):
        try:
            while not is_up(httpx, f"{url}/health"):
                if server.poll() is not None:
                    raise SystemExit(f"the Prefect server does not start:\n{log.read_text()[-2000:]}")
                time.sleep(0.5)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def is_up(client: Any, url: str) -> bool:
    """Whether a server answers."""
    try:
        return client.get(url, timeout=5).is_success
    except client.TransportError:
        return False


@contextmanager
def running_s3() -> Iterator[str]:
    """A bucket of an S3 server on this machine, as the tests start it."""
    from tests import conftest

    with tempfile.TemporaryDirectory() as folder, conftest.running_s3(Path(folder)) as server, patch.dict(os.environ, server.environment):
        yield f"s3://{conftest.BUCKET}"


def print_figures(nights: dict[int, dict[str, Any]], place: str) -> None:
    """The largest night against its targets, and against a tenth of it."""
    largest = max(nights)
    night = nights[largest]
    print_figure(f"orchestration_{place}_{largest}_ms_a_pair", night["ms a pair"], MOST_MS, higher=False)
    print_figure(f"orchestration_{place}_{largest}_cpu_ms_a_pair_and_device", night["cpu ms a pair"] / DEVICES, MOST_MS, higher=False)
    print_figure(f"orchestration_{place}_{largest}_client_megabytes", night["MB"], MOST_MEGABYTES, higher=False)
    if (tenth := nights.get(largest // 10)) is not None:
        growth = night["ms a pair"] / tenth["ms a pair"]
        print_figure(f"orchestration_{place}_{largest}_over_{largest // 10}", growth, MOST_GROWTH, higher=False)


def measure_nights(place: str, sizes: str, folder: Path, output: str) -> None:
    """Nights of several sizes on one kind of store, each in an empty one."""
    nights = {count: measure_night(folder, count, f"{output}/{count}") for count in map(int, filter(None, sizes.split(",")))}
    if nights:
        print_figures(nights, place)


def main() -> None:
    arguments = read_arguments()
    folder = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    with running_prefect(folder / "prefect"):
        measure_nights("folder", arguments.pairs, folder, str(folder / "store"))
        if arguments.s3:
            with running_s3() as bucket:
                measure_nights("s3", arguments.s3, folder, bucket)
    if arguments.rows:
        manifest = str(write_manifest(folder / "rows", arguments.rows))
        first = call(manifest, str(folder / "planned"), "plan")
        again = call(manifest, str(folder / "planned"), "plan")
        print(f"{arguments.rows} rows planned into {first['shards']} shards; again in {again['whole']:.1f} s, cpu {again['cpu']:.1f} s")
        print_figure(f"plan_{arguments.rows}_seconds", first["whole"], MOST_PLAN_SECONDS, higher=False)
        print_figure(f"plan_{arguments.rows}_megabytes", first["megabytes"], MOST_PLAN_MEGABYTES, higher=False)


if __name__ == "__main__":
    main()
