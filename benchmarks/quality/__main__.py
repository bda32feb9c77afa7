"""Run the experiment: every arm on every pair, then the figures, the tables and the sheets.

    python -m benchmarks.quality --node-modules FOLDER [--out FOLDER] [--full] [--arms NAME …] [--base NAME] [--device DEVICE]
        [--workers COUNT]

What the output folder holds is not done again. Ends with lines `FIGURE <arm>.<measure> <value> <target> <ok|short>`.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from benchmarks.figures import print_figure
from benchmarks.quality.arms import Workbench, run_arm, tabulate_pictures
from benchmarks.quality.figure import draw_figure
from benchmarks.quality.pairs import write_manifest
from benchmarks.quality.protocol import (
    ARMS,
    DEFAULT,
    FULL,
    RATES,
    SUBJECTS,
    TRUTHS,
    VALIDATION_SUBJECTS,
    VALIDATION_TESTS,
    Arm,
    Extent,
    choose_rate,
    choose_tests,
    group_arms,
)
from benchmarks.quality.results import average_pairs
from benchmarks.quality.search import search_rates
from benchmarks.quality.sheets import draw_sheet, read_truths
from benchmarks.quality.tables import print_figures, write_area_table, write_group_table, write_side_table
from benchmarks.quality.verdicts import judge_arms, print_separation
from pairlora.bases import load_base
from pairlora.config import BaseConfig, SampleConfig, TrainConfig
from pairlora.evaluation.encoders import ClipEncoder, PerceptualEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.presets import PRESETS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node-modules", type=Path, required=True, help="folder with the npm packages of the drawings")
    parser.add_argument("--out", type=Path, default=Path("build/quality"), help="store, tables, figure and sheets")
    parser.add_argument("--full", action="store_true", help="20 pairs and 3 seeds in place of 12 and 2")
    parser.add_argument("--seeds", type=int, help="seeds of every prompt; 2, and 3 with --full, where left out")
    parser.add_argument("--arms", nargs="*", default=[], help="only these; all where left out")
    parser.add_argument("--search", action="store_true", help="only the learning rates, on the validation pairs")
    parser.add_argument("--verdicts", action="store_true", help="only good adapters against overfitted ones, on eight of the test pairs")
    parser.add_argument("--base", default="embedded", help="a named base, a folder or a hub id")
    parser.add_argument("--dtype", help="precision of the frozen base; the preset's where left out")
    parser.add_argument("--rates", type=float, nargs="*", default=RATES, help="learning rates that --search tries")
    parser.add_argument("--device", default="cpu", help="'cpu' or 'cuda:0'")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each, which share the arms")
    return parser.parse_args()


def open_bench(given: argparse.Namespace) -> Workbench:
    """The base and the encoders, loaded once."""
    torch.set_num_threads(1)
    pinned = BaseConfig.model_validate(PRESETS.get(given.base, {}).get("base", {}))
    dtype = given.dtype or pinned.dtype
    base = load_base(given.base, pinned.revision, device=given.device, dtype=dtype)
    clip = ClipEncoder("embedded", None, given.device)
    return Workbench(base, given.base, Scorer(clip, PerceptualEncoder()), given.out, dtype)


def prepare_tests(given: argparse.Namespace, extent: Extent, identifier: str, name: str = "test") -> Path:
    """The manifest of test pairs in the output folder."""

    def choose(group: str) -> tuple[str, ...]:
        return sum(choose_tests(group, extent.prompts), ())

    path = given.out / (f"{name}-{identifier}.jsonl" if identifier else f"{name}.jsonl")
    resolution = read_resolution(given.base)
    return write_manifest(path, given.node_modules, extent.subjects, choose, resolution=resolution, identifier=identifier)


def prepare_validation(given: argparse.Namespace) -> Path:
    """The manifest of the validation pairs in the output folder."""
    path, resolution = given.out / "validation.jsonl", read_resolution(given.base)
    return write_manifest(path, given.node_modules, VALIDATION_SUBJECTS, lambda group: VALIDATION_TESTS, resolution=resolution)


def read_resolution(base: str) -> int:
    """Side of a base's training pictures in pixels."""
    return PRESETS.get(base, {}).get("train", {}).get("resolution", TrainConfig().resolution)


def run_experiment(bench: Workbench, given: argparse.Namespace, arms: list[Arm]) -> tuple[pd.DataFrame, int]:
    """All arms on all test pairs, one after another; the table of all pictures, and how many adapters and pictures were new."""
    extent, scale = choose_extent(given), read_scale(given.base)
    tables, made = [], 0
    for arm in arms:
        started = time.monotonic()
        pairs = run_arm(bench, arm, prepare_tests(given, extent, arm.identifier), extent.seeds, choose_rate(given.base, arm))
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


def add_minutes(folder: Path, minutes: float, made: int) -> float:
    """Minutes of all calls that made anything, this one among them: a run that was cut off is timed as a whole."""
    path = folder / "minutes.json"
    spent = json.loads(path.read_text()) if path.exists() else []
    if made:
        spent.append(minutes)
        path.write_text(json.dumps(spent))
    return sum(spent)


def choose_extent(given: argparse.Namespace) -> Extent:
    """What is drawn, as the command line asks for it."""
    extent = FULL if given.full else DEFAULT
    return extent if given.seeds is None else replace(extent, seeds=range(given.seeds))


def read_scale(base: str) -> float:
    """λ_cfg of a base's recipe."""
    return PRESETS.get(base, {}).get("sample", {}).get("guidance_scale", SampleConfig().guidance_scale)


def write_results(pictures: pd.DataFrame, bench: Workbench, arms: list[Arm]) -> None:
    """Table of all pictures, tables in Markdown, figure and sheets, into the output folder."""
    folder = bench.folder
    pictures.to_parquet(folder / "pictures.parquet")
    parts = [f"{truth}\n\n{write_area_table(pictures, arms, truth)}" for truth in TRUTHS]
    parts += [write_group_table(pictures, arms), write_side_table(pictures, arms)]
    (folder / "tables.md").write_text("\n".join(parts))
    draw_figure(average_pairs(pictures), arms, folder / "curves.svg")
    truths = read_truths(folder / "test.jsonl")
    for arm in arms:
        draw_sheet(pictures, arm.name, bench.store.url, truths, folder / f"sheet-{arm.name}.png")


def main() -> None:
    given = parse_arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    arms = [arm for arm in ARMS if not given.arms or arm.name in given.arms]
    bench = open_bench(given)
    if given.search:
        trained = [arm for arm in arms if arm.is_trained]
        print(search_rates(bench, trained, prepare_validation(given), read_scale(given.base), given.rates).to_string(index=False))
        return
    if given.verdicts:
        extent = replace(choose_extent(given), subjects=dict(list(SUBJECTS.items())[:4]))
        manifest = prepare_tests(given, extent, "", "verdicts")
        print_separation(judge_arms(bench, arms[0], manifest, extent.seeds, choose_rate(given.base, arms[0])))
        return
    arms = [arm for arm in ARMS if arm in arms or arm.name == "ours"]  # what all others are compared with
    started = time.monotonic()
    made = fill_store(given, arms) if given.workers > 1 else 0
    pictures, more = run_experiment(bench, given, arms)
    write_results(pictures, bench, arms)
    print((given.out / "tables.md").read_text())
    print_figures(pictures, arms)
    print(f"{made + more} adapters and pictures were made by this call")
    print_figure("quality.minutes", add_minutes(given.out, (time.monotonic() - started) / 60, made + more), 75, higher=False)


if __name__ == "__main__":
    main()
