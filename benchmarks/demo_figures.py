"""Figures of a finished demo, read from the tables of its newest report: did the styles arrive, by the ground truth?

    python -m benchmarks.demo_figures OUTPUT

Ends with lines `FIGURE <name> <value> <target> <ok|short>`.
"""

import sys
from pathlib import Path

import pandas as pd

from benchmarks.figures import print_figure

PERCEPTUAL, CLIP = "truth_perceptual_gain", "truth_gain"
TARGETS = {PERCEPTUAL: 6, CLIP: 8}
"""Of the eight example pairs, how many shall gain at the recommended strength: by features that nobody here trained, by the small CLIP."""


def find_report(output: Path) -> Path:
    """The folder of the newest report of a store."""
    reports = sorted(output.glob("runs/*/report"))
    if not reports:
        raise SystemExit(f"{output} holds no report; run `make demo` first")
    return reports[-1]


def measure_pairs(report: Path) -> pd.DataFrame:
    """One row a pair at its recommended strength: both gains on the ground truth with their lower bounds, and direction."""
    pairs = pd.read_parquet(report / "pairs.parquet", columns=["pair_id", "recommended_strength"])
    overall = pd.read_parquet(report / "summaries.parquet").query("prompt == ''")
    recommended = overall.merge(pairs, on="pair_id").query("strength == recommended_strength").set_index("pair_id")
    table = pairs.set_index("pair_id")
    for name in (*TARGETS, "direction"):
        found = recommended[recommended.metric == name]
        table = table.join(found[["value", "low"]].rename(columns={"value": name, "low": f"{name}_low"}))
    return table


def count_gains(table: pd.DataFrame, name: str) -> int:
    """Pairs whose gain by a measure is above 0 with its lower bound, and which moved in the pair's own direction."""
    return int(((table[f"{name}_low"] > 0) & (table["direction"] > 0)).sum())


def main() -> None:
    (output,) = map(Path, sys.argv[1:])
    report = find_report(output)
    table = measure_pairs(report)
    print(table.round(3).to_string())
    images = pd.read_parquet(report / "images.parquet", columns=["pair_id", "strength"])
    print_figure("demo.adapters", len(list(output.glob("done/adapter/*/*.json"))), 8)
    print_figure("demo.styled_images", int((images.strength > 0).sum()), 144)
    print_figure("demo.pairs_with_gain", count_gains(table, PERCEPTUAL), TARGETS[PERCEPTUAL])
    print_figure("demo.pairs_with_truth_gain", count_gains(table, CLIP), TARGETS[CLIP])


if __name__ == "__main__":
    main()
