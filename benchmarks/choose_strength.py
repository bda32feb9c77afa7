"""Compare rules of the recommended strength on validation pairs, whose pictures are neither in the demo nor in the quality benchmark.

    python -m benchmarks.choose_strength --node-modules FOLDER [--out FOLDER] [--set train.learning_rate=0.001 …]

Prints the means of each pair by strength, then for each rule the strengths that it recommends and how many pairs gain there
with the lower bound of their interval above 0, by perceptual features and by the CLIP. The rules see no ground truth.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.quality.arms import run_arm
from benchmarks.quality.experiment import open_bench
from benchmarks.quality.pairs import write_manifest
from benchmarks.quality.protocol import VALIDATION_SUBJECTS, Arm
from pairlora.cli.main import put_texts
from pairlora.config import EvaluateConfig
from pairlora.presets import PRESETS
from pairlora.report.collection import PairContents
from pairlora.report.summaries import recommend, summarize_pair

TESTS = ("rabbit-face", "owl", "lemon", "cookie", "taxi", "drum")
RELATIVE_STRENGTHS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5)
SHOWN = ("progress", "direction", "structure_ssim", "structure_similarity", "truth_perceptual_gain", "truth_gain")
PROGRESS = (0.05, 0.1, 0.15, 0.2)
PACES = (0.0, 0.75)
OFFERED = ((0.25, 0.5, 1.0), (0.25, 0.375, 0.5, 1.0))
"""Strengths among which a rule has to choose, over the guidance scale."""


def tabulate_strengths(pairs: Sequence[PairContents], evaluate: EvaluateConfig) -> pd.DataFrame:
    """Means over all prompts by pair and strength, with the lower bounds of the gains."""
    rows = []
    for pair in pairs:
        summary = summarize_pair(pair, evaluate)
        for strength in summary.by_strength("progress"):
            found = {name: summary.find(name, strength) for name in SHOWN}
            row = {name: one.value for name, one in found.items() if one}
            row |= {f"{name}_low": one.low for name, one in found.items() if one and name.endswith("gain")}
            rows.append({"pair_id": pair.pair_id, "strength": strength} | row)
    return pd.DataFrame(rows).set_index(["pair_id", "strength"])


def try_rules(pairs: Sequence[PairContents], table: pd.DataFrame) -> Iterator[dict]:
    """What each rule comes to: strengths, pairs with a gain by either measure, mean gains."""
    scale = PRESETS["embedded"]["sample"]["guidance_scale"]
    for offered, least, pace in product(OFFERED, PROGRESS, PACES):
        evaluate = EvaluateConfig(least_progress=least, least_pace=pace, bootstrap_samples=100)
        drawn = {
            pair.pair_id: [(one, one.record.strength) for one in pair.images if one.record.strength / scale in offered] for pair in pairs
        }
        chosen = {pair_id: recommend(images, evaluate).value for pair_id, images in drawn.items()}
        at = table.loc[[(pair_id, strength) for pair_id, strength in chosen.items() if strength is not None]]
        gains = {f"{name} pairs": int((at[f"{name}_low"] > 0).sum()) for name in SHOWN[-2:]}
        means = {f"{name} mean": at[name].mean() for name in SHOWN[-2:]}
        yield {"offered": offered, "least": least, "pace": pace, **gains, **means, "strengths": list(chosen.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node-modules", type=Path, required=True, help="folder with the npm packages of the drawings")
    parser.add_argument("--out", type=Path, default=Path("build/strength"))
    parser.add_argument("--set", dest="settings", action="append", default=[], help="section.field=value over the preset")
    given = parser.parse_args()
    given.base, given.dtype, given.device, given.strengths = "embedded", None, "cpu", RELATIVE_STRENGTHS
    bench = open_bench(given)
    train = PRESETS["embedded"]["train"]
    manifest = write_manifest(
        given.out / "validation.jsonl", given.node_modules, VALIDATION_SUBJECTS, lambda group: TESTS, resolution=train["resolution"]
    )
    settings: dict[str, Any] = {}
    put_texts(settings, given.settings)
    train = train | settings.pop("train", {})
    arm = Arm("-".join(given.settings).replace("=", "_") or "preset", "", settings={"train": train, **settings})
    pairs = run_arm(bench, arm, manifest, (0, 1))
    table = tabulate_strengths(pairs, EvaluateConfig())
    print(table.round(3).to_string())
    print(pd.DataFrame(try_rules(pairs, table)).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
