"""Worker processes: one per device, spawned, with the base loaded once, killed when they hang, restarted when they die.

A shard is done inside such a process; the caller's process never loads torch for it. Workers ignore Ctrl-C, which is
the parent's to handle, and die with their parent.
"""

import ctypes
import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from functools import cache
from pkgutil import resolve_name
from typing import Any

from pebble import ProcessExpired, ProcessPool

from pairlora.config import AnyRun, BaseConfig, EvaluateConfig
from pairlora.errors import ConfigError, NoSpaceError, StoppedError, WorkerError
from pairlora.execution.progress import Listener, ProgressEvent
from pairlora.records import Outcome, RowShard

log = logging.getLogger(__name__)
STOP_POLL_SECONDS = 0.5
PIPELINES = {
    "customize_shard": "pairlora.execution.pipeline:ShardPipeline",
    "stylize_shard": "pairlora.catalogue.pipeline:CataloguePipeline",
}
"""Whose method does a shard in a worker, by names: the flow's process imports no torch."""
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def count_cuda_devices() -> int:
    """GPUs that torch sees. Where Linux has no NVIDIA device, seconds of importing torch are spared."""
    if sys.platform == "linux" and not os.path.exists("/dev/nvidiactl"):
        return 0
    import torch

    return torch.cuda.device_count()


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_devices(devices: str) -> list[str]:
    """One entry a worker: 'cpu' or 'cuda:0'. 'auto' takes every GPU, else a worker per core, four at most."""
    kind, _, rest = devices.partition(":")
    if devices in {"auto", "cuda"} and (count := count_cuda_devices()):
        return [f"cuda:{index}" for index in range(count)]
    if devices == "cuda":
        raise ConfigError("execution.devices = 'cuda', but torch sees no GPU; use 'cpu'")
    if devices == "auto":
        return ["cpu"] * min(4, count_cores())
    if kind == "cpu" and (not rest or rest.isdecimal()):
        return ["cpu"] * max(1, int(rest or 1))
    if kind == "cuda" and all(part.isdecimal() for part in rest.split(",")):
        return [f"cuda:{part}" for part in rest.split(",")]
    raise ConfigError(f"execution.devices = '{devices}' is not understood; use 'auto', 'cpu', 'cpu:2', 'cuda' or 'cuda:0,1'")


class Worker:
    """The process of one device, with a queue of its own for its events: a process that is killed can leave a lock behind."""

    def __init__(self, device: str, offline: bool):
        spawn = multiprocessing.get_context("spawn")
        self.events: Any = spawn.Queue()
        self._pool = ProcessPool(
            max_workers=1, context=spawn, initializer=_start_worker, initargs=(device, offline, os.getpid(), self.events)
        )

    @property
    def alive(self) -> bool:
        """Whether it takes work. A pool whose process died at the wrong moment never does again."""
        return self._pool.active

    def schedule(self, *arguments: Any, timeout: float) -> Future:
        return self._pool.schedule(_do_shard, args=arguments, timeout=timeout)

    def relay_events(self, listeners: Sequence[Listener], stopped: threading.Event) -> None:
        """Pass events on until the run ends; a listener that fails costs its own news and nothing else."""
        while not stopped.is_set():
            try:
                event = self.events.get(timeout=STOP_POLL_SECONDS)
            except (queue.Empty, EOFError, OSError):
                continue
            for listener in listeners:
                try:
                    listener(event)
                except Exception:
                    log.exception("progress could not be shown")

    def stop(self) -> None:
        self._pool.stop()
        self._pool.join()
        self.events.close()
        self.events.cancel_join_thread()


class WorkerPool:
    """One worker process a device. `do_shard` does a shard on a free one; use as a context manager."""

    def __init__(self, devices: Sequence[str], listeners: Sequence[Listener] = (), *, offline: bool = False):
        self._devices = list(devices)
        self._listeners = tuple(listeners)
        self._offline = offline
        self._session = uuid.uuid4().hex[:8]  # two runs of one manifest share its run's folder, and their tries have names of their own
        self._stopped = threading.Event()
        self._full: NoSpaceError | None = None
        self._workers: dict[int, Worker] = {}
        self._free: queue.Queue[int] = queue.Queue()

    def __enter__(self) -> "WorkerPool":
        for index in range(len(self._devices)):
            self._start(index)
            self._free.put(index)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self._stopped.set()
        for worker in self._workers.values():
            worker.stop()

    def _start(self, index: int) -> None:
        worker = self._workers[index] = Worker(self._devices[index], self._offline)
        threading.Thread(target=worker.relay_events, args=(self._listeners, self._stopped), daemon=True).start()

    def do_shard(self, work: str, shard: RowShard, run: AnyRun, run_id: str, *, attempt: int = 1) -> list[Outcome]:
        """Do a shard on the next free device; `work` is a method that `PIPELINES` names.

        WorkerError where its process dies or runs past the configured time, StoppedError where the run ends meanwhile; NoSpaceError
        where the store is full, from then on for every shard: the run is over until somebody makes room.
        """
        index = self._free.get()
        timeout = run.execution.shard_timeout_seconds
        try:
            self._raise_if_stopped(shard)
            if self._full is not None:
                raise self._full
            if not self._workers[index].alive:
                self._workers[index].stop()
                self._start(index)
            name = f"{self._session}-{attempt}"
            return self._await(shard, self._workers[index].schedule(work, shard, run, run_id, name, timeout=timeout))
        except NoSpaceError as error:
            self._full = error
            raise
        except TimeoutError as error:
            remedy = "raise execution.shard_timeout_seconds"
            raise WorkerError(f"{shard.name} ran past its {timeout:g} s and was killed; {remedy}") from error
        except (ProcessExpired, CancelledError, BrokenExecutor) as error:
            self._raise_if_stopped(shard)
            code = f" with exit code {error.exitcode}" if isinstance(error, ProcessExpired) else ""
            raise WorkerError(f"the worker of {shard.name} died{code}; out of memory is the usual reason") from error
        finally:
            self._free.put(index)

    def _await(self, shard: RowShard, future: Future) -> list[Outcome]:
        """The result of a future; a pool that is stopped leaves some futures open for ever, so that is looked for too."""
        while True:
            done, _ = wait([future], timeout=STOP_POLL_SECONDS)
            if done:
                return future.result()
            self._raise_if_stopped(shard)

    def _raise_if_stopped(self, shard: RowShard) -> None:
        if self._stopped.is_set():
            raise StoppedError(f"{shard.name} was given up: the run is ending")


# In the worker process


def _start_worker(device: str, offline: bool, parent: int, events: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update({"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"} | ({"HF_HUB_OFFLINE": "1"} if offline else {}))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the signal was asked for
    if device == "cpu":
        os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
    _silence_progress_bars()
    _Process.device, _Process.events = device, events


def _silence_progress_bars() -> None:
    """Bars and notices of libraries would cross those of the command line."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()


class _Process:
    """What a worker process was started with: set once by its initializer, which is the only way a queue gets in."""

    device = "cpu"
    events: Any = None


@cache
def _load_base(base: BaseConfig):
    from pairlora.bases import load_base

    return load_base(base.name, base.revision, base.config, device=_Process.device, dtype=base.dtype)


@cache
def _load_scorer(evaluate: EvaluateConfig):
    from pairlora.evaluation.encoders import ClipEncoder, PerceptualEncoder
    from pairlora.evaluation.scoring import Scorer

    clip = ClipEncoder(evaluate.clip, evaluate.clip_revision, _Process.device)
    return Scorer(clip, PerceptualEncoder() if evaluate.perceptual else None)


def _send(event: ProgressEvent) -> None:
    _Process.events.put(event)


def _do_shard(work: str, shard: RowShard, run: AnyRun, run_id: str, attempt: str) -> list[Outcome]:
    from pairlora.store.run_store import RunStore

    base, scorer = _load_base(run.base), _load_scorer(run.evaluate)  # pyright: ignore[reportArgumentType]  frozen models are hashable
    store = RunStore(run.output.url, timeout=run.output.timeout_seconds)
    pipeline = resolve_name(PIPELINES[work])(run, run_id, base, store, scorer, _send)
    return getattr(pipeline, work)(shard, attempt)
