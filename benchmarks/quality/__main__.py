"""Run the experiment: every arm on every pair, then the figures, the tables and the sheets.

    python -m benchmarks.quality --node-modules FOLDER [--out FOLDER] [--full] [--unknown] [--arms NAME …] [--base NAME] [--device DEVICE]
        [--strengths SHARE …] [--workers COUNT]

What the output folder holds is not done again. Ends with lines `FIGURE <arm>.<measure> <value> <target> <ok|short>`.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.figures import print_figure
from benchmarks.quality.arms import Workbench
from benchmarks.quality.experiment import (
    Stopwatch,
    choose_extent,
    fill_store,
    open_bench,
    prepare_tests,
    run_experiment,
    run_search,
)
from benchmarks.quality.figure import draw_figure
from benchmarks.quality.protocol import ARMS, RATES, RELATIVE_STRENGTHS, TRUTHS, Arm
from benchmarks.quality.results import average_pairs
from benchmarks.quality.search import choose_best
from benchmarks.quality.sheets import draw_sheet, read_truths
from benchmarks.quality.tables import print_figures, write_area_table, write_group_table, write_side_table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node-modules", type=Path, required=True, help="folder with the npm packages of the drawings")
    parser.add_argument("--out", type=Path, default=Path("build/quality"), help="store, tables, figure and sheets")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--full", action="store_true", help="20 pairs and 3 seeds in place of 12 and 2")
    extent.add_argument("--unknown", action="store_true", help="six subjects that the embedded base has never drawn; tables of their own")
    parser.add_argument("--seeds", type=int, help="seeds of every prompt; 2, and 3 with --full, where left out")
    parser.add_argument(
        "--strengths", type=float, nargs="*", default=RELATIVE_STRENGTHS, help="over the guidance scale; 0 and 1 are among them"
    )
    parser.add_argument("--arms", nargs="*", default=[], help="only these; all, or those of --unknown, where left out")
    parser.add_argument("--search", action="store_true", help="only the learning rates, on the validation pairs")
    parser.add_argument("--base", default="embedded", help="a named base, a folder or a hub id")
    parser.add_argument("--dtype", help="precision of the frozen base; the preset's where left out")
    parser.add_argument("--rates", type=float, nargs="*", default=RATES, help="learning rates that --search tries")
    parser.add_argument("--device", default="cpu", help="'cpu' or 'cuda:0'")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each, which share the arms")
    return parser.parse_args()


def write_results(pictures: pd.DataFrame, bench: Workbench, arms: list[Arm], manifests: Iterable[Path]) -> None:
    """Table of all pictures, tables in Markdown, figure and sheets, into the folder of results."""
    folder = bench.results
    pictures.to_parquet(folder / "pictures.parquet")
    parts = [f"{truth}\n\n{write_area_table(pictures, arms, truth)}" for truth in TRUTHS]
    parts += [write_group_table(pictures, arms), write_side_table(pictures, arms)]
    (folder / "tables.md").write_text("\n".join(parts))
    draw_figure(average_pairs(pictures), arms, folder / "curves.svg")
    truths = read_truths(manifests)
    for arm in arms:
        draw_sheet(pictures, arm.name, bench.store.url, truths, folder / f"sheet-{arm.name}.png")


def main() -> None:
    given = parse_arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    arms = [arm for arm in ARMS if arm.name in (given.arms or choose_extent(given).arms)]
    bench = replace(open_bench(given), topic="unknown" if given.unknown else "")
    if given.search:
        table = run_search(bench, given, arms)
        print(table.to_string(index=False), choose_best(table).to_string(), sep="\n\n")
        return
    arms = [arm for arm in ARMS if arm in arms or arm.name == "ours"]  # what all others are compared with
    bench.results.mkdir(exist_ok=True)
    stopwatch, started = Stopwatch(bench.results / "minutes.json"), time.monotonic()
    stopwatch.begin()
    made = fill_store(given, arms) if given.workers > 1 else 0
    pictures, more = run_experiment(bench, given, arms)
    manifests = [path for arm in arms for path in prepare_tests(given, choose_extent(given), arm.identifier).values()]
    write_results(pictures, bench, arms, manifests)
    print((bench.results / "tables.md").read_text())
    print_figures(pictures, arms)
    print(f"{made + more} adapters and pictures were made by this call")
    minutes = stopwatch.end((time.monotonic() - started) / 60, made + more)
    if minutes is None:
        print("quality.minutes is unknown: a call was cut off, or none made anything; begin in an empty --out to time it")
    else:
        print_figure("quality.minutes", minutes, 75, higher=False)


if __name__ == "__main__":
    main()
