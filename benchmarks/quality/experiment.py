"""The experiment as a whole: the manifests, and all arms on all test pairs, in one process or in several that share them.

Processes are begun here and not by the command's own module, which a new process does not import.
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from benchmarks.quality.arms import Workbench, run_arm, tabulate_pictures
from benchmarks.quality.pairs import write_manifest
from benchmarks.quality.protocol import (
    DEFAULT,
    FULL,
    NOMINAL,
    STYLES,
    UNKNOWN,
    VALIDATION_TESTS,
    Arm,
    Extent,
    choose_tests,
    group_arms,
)
from benchmarks.quality.search import SEEDS, list_tries, search_rates
from embedded_base.write_examples import GROUPS
from pairlora.bases import load_base
from pairlora.config import BaseConfig, SampleConfig, TrainConfig
from pairlora.evaluation.encoders import ClipEncoder, PerceptualEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.presets import PRESETS


def open_bench(given: argparse.Namespace) -> Workbench:
    """The base and the encoders, loaded once."""
    torch.set_num_threads(1)
    pinned = BaseConfig.model_validate(PRESETS.get(given.base, {}).get("base", {}))
    dtype = given.dtype or pinned.dtype
    base = load_base(given.base, pinned.revision, device=given.device, dtype=dtype)
    clip = ClipEncoder("embedded", None, given.device)
    strengths = tuple(sorted({0.0, NOMINAL, *given.strengths}))
    return Workbench(base, given.base, Scorer(clip, PerceptualEncoder()), given.out, dtype, strengths)


def prepare_tests(given: argparse.Namespace, extent: Extent, identifier: str) -> dict[str, Path]:
    """The manifests of the test pairs in the output folder, by the group that names their style."""

    def choose(group: str) -> tuple[str, ...]:
        return sum(choose_tests(group, extent.prompts), ())

    def prepare(style: str) -> Path:
        path = given.out / f"{'-'.join(part for part in (extent.name, GROUPS[style], identifier) if part)}.jsonl"
        resolution = read_resolution(given.base)
        return write_manifest(
            path, given.node_modules, extent.subjects, choose, resolution=resolution, styles=[style], identifier=identifier
        )

    return {GROUPS[style]: prepare(style) for style in STYLES}


def prepare_validation(given: argparse.Namespace) -> Path:
    """The manifest of the validation pairs in the output folder."""
    extent, resolution = choose_extent(given), read_resolution(given.base)
    path = given.out / f"validation-{extent.name}.jsonl"
    return write_manifest(path, given.node_modules, extent.validation, lambda group: VALIDATION_TESTS, resolution=resolution)


def read_resolution(base: str) -> int:
    """Side of a base's training pictures in pixels."""
    return PRESETS.get(base, {}).get("train", {}).get("resolution", TrainConfig().resolution)


def run_experiment(bench: Workbench, given: argparse.Namespace, arms: list[Arm]) -> tuple[pd.DataFrame, int]:
    """All arms on all test pairs, one after another; the table of all pictures, and how many adapters and pictures were new."""
    extent, scale = choose_extent(given), read_scale(given.base)
    tables, made = [], 0
    for arm in arms:
        started, pairs = time.monotonic(), []
        for style, manifest in prepare_tests(given, extent, arm.identifier).items():
            pairs += run_arm(bench, arm, manifest, extent.seeds, extent.choose_rate(given.base, arm, style))
        tables.append(tabulate_pictures(arm, pairs, scale, extent.subjects))
        trained, drawn = sum(pair.outcome.trained for pair in pairs), sum(pair.outcome.images_drawn for pair in pairs)
        made += trained + drawn
        print(f"{arm.name}: {trained} trained, {drawn} pictures drawn, {time.monotonic() - started:.0f} s", flush=True)
    return pd.concat(tables, ignore_index=True), made


def fill_store(given: argparse.Namespace, arms: list[Arm]) -> int:
    """Train, draw and score all arms in processes, and say how much was new; arms that share adapters are one process's work."""
    shares = list(group_arms(arms).values())
    for arm in arms:
        prepare_tests(given, choose_extent(given), arm.identifier)
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        return sum(pool.map(_fill_share, [given] * len(shares), shares))


def _fill_share(given: argparse.Namespace, arms: list[Arm]) -> int:
    return run_experiment(open_bench(given), given, arms)[1]


def run_search(bench: Workbench, given: argparse.Namespace, arms: list[Arm]) -> pd.DataFrame:
    """Every way of training at each rate on the validation pairs, in `given.workers` processes; see `search_rates`."""
    tries, manifest = list_tries(arms, given.rates), prepare_validation(given)
    if given.workers > 1:
        with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
            list(pool.map(_fill_try, [given] * len(tries), [manifest] * len(tries), tries))
    return search_rates(bench, tries, manifest, read_scale(given.base), choose_extent(given).validation)


def _fill_try(given: argparse.Namespace, manifest: Path, tried: tuple[Arm, float]) -> None:
    arm, rate = tried
    run_arm(open_bench(given), arm, manifest, SEEDS, rate)
    print(f"{arm.name} at {rate:g} is done", flush=True)


@dataclass
class Stopwatch:
    """Minutes of all calls that made anything, in a file of the output folder; a call that was cut off stands there as null."""

    path: Path

    def begin(self) -> None:
        """Note that a call began."""
        self._write([*self._read(), None])

    def end(self, minutes: float, made: int) -> float | None:
        """Note what the call that began last took, and give the sum of all; null where one was cut off, or none made anything."""
        *earlier, _ = self._read()
        spent = [*earlier, minutes] if made else earlier
        self._write(spent)
        known = [one for one in spent if one is not None]
        return sum(known) if spent and len(known) == len(spent) else None

    def _read(self) -> list[float | None]:
        return json.loads(self.path.read_text()) if self.path.exists() else []

    def _write(self, spent: Sequence[float | None]) -> None:
        self.path.write_text(json.dumps(spent))


def choose_extent(given: argparse.Namespace) -> Extent:
    """What is drawn, as the command line asks for it."""
    extent = FULL if given.full else UNKNOWN if given.unknown else DEFAULT
    return extent if given.seeds is None else replace(extent, seeds=range(given.seeds))


def read_scale(base: str) -> float:
    """λ_cfg of a base's recipe."""
    return PRESETS.get(base, {}).get("sample", {}).get("guidance_scale", SampleConfig().guidance_scale)
