"""Figures of a finished demo, read from the tables of its newest report: did the styles arrive, by the ground truth?

    python -m benchmarks.demo_figures OUTPUT

Ends with lines `FIGURE <name> <value> <target> <ok|short>`.
"""

import sys
from pathlib import Path

import pandas as pd

from benchmarks.figures import print_figure

TARGET_PAIRS = 6
"""Of the eight example pairs, how many shall gain on the ground truth at the recommended strength."""


def measure_pairs(report: Path) -> pd.DataFrame:
    """One row a pair: gain on the ground truth by features that nobody here trained, and direction, at the recommended strength."""
    pairs = pd.read_parquet(report / "pairs.parquet", columns=["pair_id", "recommended_strength"])
    overall = pd.read_parquet(report / "summaries.parquet").query("prompt == ''")
    recommended = overall.merge(pairs, on="pair_id").query("strength == recommended_strength")
    gain = recommended[recommended.metric == "truth_perceptual_gain"].set_index("pair_id")
    direction = recommended[recommended.metric == "direction"].set_index("pair_id")
    table = pairs.set_index("pair_id").join(gain[["value", "low", "high", "n"]]).join(direction["value"].rename("direction"))
    table["gains"] = (table["low"] > 0) & (table["direction"] > 0)
    return table


def main() -> None:
    (output,) = map(Path, sys.argv[1:])
    reports = sorted(output.glob("runs/*/report"))
    if not reports:
        raise SystemExit(f"{output} holds no report; run `make demo` first")
    table = measure_pairs(reports[-1])
    print(table.round(3).to_string())
    images = pd.read_parquet(reports[-1] / "images.parquet", columns=["pair_id", "strength"])
    print_figure("demo.adapters", len(list(output.glob("done/adapter/*/*.json"))), 8)
    print_figure("demo.styled_images", int((images.strength > 0).sum()), 144)
    print_figure("demo.pairs_with_gain", int(table.gains.sum()), TARGET_PAIRS)


if __name__ == "__main__":
    main()
