"""Does the verdict tell good adapters from overfitted ones? The same pairs trained by the recipe and for ten times its steps.

    python -m benchmarks.quality.verdicts --node-modules FOLDER [--out FOLDER] [--pairs validation|test|second]

Limits were chosen on the validation pairs first, and later on them, the test pairs and the examples; the second test pairs are none of
those. What the output folder holds is not done again. An adapter is told as what it is where a good one is not rejected and an
overfitted one is; what other readings come to stands beside it. Ends with a line `FIGURE verdict.separated <value> <target> <ok|short>`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.figures import print_figure
from benchmarks.quality.arms import Workbench, run_arm
from benchmarks.quality.pairs import write_manifest
from benchmarks.quality.protocol import ARMS, MORE_SUBJECTS, SUBJECTS, VALIDATION_SUBJECTS, Arm, choose_tests
from pairlora.bases import load_base
from pairlora.config import TrainConfig
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.presets import PRESETS
from pairlora.report.collection import PairContents
from pairlora.report.verdicts import find_out

TIMES = 10
"""How much longer the overfitted adapters are trained."""
BASE = "embedded"
VALIDATION_TESTS = ("cat-face", "pizza", "guitar", "penguin")
TEST_SUBJECTS = ("panda", "cupcake", "locomotive", "trophy")
"""Subjects of the pairs that are judged once, each in both styles, with two test contents of their group and two of others."""
SECOND_TEST_SUBJECTS = tuple(MORE_SUBJECTS)
"""The same for limits that were moved after the first test."""
SEEDS = (0, 1)
SHOWN = ("direction", "structure_ssim", "structure_similarity", "content_leakage", "subject_leakage", "diversity")
"""Means at the recommended strength that are printed with each verdict."""


def make_overfitted(arm: Arm, train: TrainConfig) -> Arm:
    """The arm with `TIMES` its steps, of which the content phase keeps its share; one draw a step, which overfits as well and sooner."""
    longer = {"steps": TIMES * train.steps, "content_steps": TIMES * train.content_steps, "draws": 1}
    settings: dict[str, Any] = dict(arm.settings) | {"train": {**arm.settings.get("train", {}), **longer}}
    return replace(arm, name=f"{arm.name}-overfitted", settings=settings)


def judge_arms(bench: Workbench, arm: Arm, manifest: Path, seeds: Sequence[int], rate: float | None) -> pd.DataFrame:
    """One row an adapter: good or overfitted, the verdict with its reasons, and what the rules saw at the recommended strength."""
    train = bench.configure(arm, manifest, seeds, rate).train
    rows = []
    for kind, tried in (("good", arm), ("overfitted", make_overfitted(arm, train))):
        evaluate = bench.configure(tried, manifest, seeds, rate).evaluate
        for pair in run_arm(bench, tried, manifest, seeds, rate):
            rows.append({"kind": kind, "pair_id": pair.pair_id} | describe_verdict(pair, evaluate))
    return pd.DataFrame(rows)


def describe_verdict(pair: PairContents, evaluate: Any) -> dict[str, Any]:
    """Verdict, recommended strength and the means that rules read there."""
    finding = find_out(pair, evaluate)
    strength = finding.summary.recommended_strength
    means = {name: found.value if (found := finding.summary.find(name, strength)) else None for name in SHOWN}
    facts = {"verdict": finding.judgement.verdict, "strength": strength, "spill": finding.summary.spill}
    return facts | means | {"reasons": "; ".join(finding.judgement.reasons)}


def print_separation(judged: pd.DataFrame) -> None:
    """How many adapters are judged as what they are: good ones are not rejected, overfitted ones are."""
    overfitted = judged.kind == "overfitted"
    told = {
        "rejected or not": judged.verdict == "reject",
        "accepted or not": judged.verdict != "accept",
        "the spill alone": judged.spill > PRESETS[BASE]["evaluate"]["reject_spill"],
    }
    print(judged.to_string(index=False, float_format="{:.2f}".format))
    for name, faulty in told.items():
        print(f"told by {name}: {(faulty == overfitted).sum()} of {len(judged)}")
    print_figure("verdict.separated", int((told["rejected or not"] == overfitted).sum()), round(len(judged) * 14 / 16))


def prepare_manifest(pairs: str, node_modules: Path, out: Path) -> Path:
    """The manifest of the validation pairs or of those of a test, written with their pictures into the output folder."""
    resolution = PRESETS[BASE]["train"]["resolution"]
    if pairs != "validation":
        subjects = {one: (SUBJECTS | MORE_SUBJECTS)[one] for one in (TEST_SUBJECTS if pairs == "test" else SECOND_TEST_SUBJECTS)}
        return write_manifest(out / f"{pairs}.jsonl", node_modules, subjects, choose_both, resolution=resolution)
    return write_manifest(out / "verdicts.jsonl", node_modules, VALIDATION_SUBJECTS, lambda group: VALIDATION_TESTS, resolution=resolution)


def choose_both(group: str) -> tuple[str, ...]:
    """Two test contents of a group and two of others."""
    own, others = choose_tests(group, each=2)
    return (*own, *others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node-modules", type=Path, required=True, help="folder with the npm packages of the drawings")
    parser.add_argument("--out", type=Path, default=Path("build/verdicts"), help="store and manifest")
    parser.add_argument("--pairs", choices=("validation", "test", "second"), default="second")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    bench = Workbench(load_base(BASE), BASE, Scorer(ClipEncoder(BASE), None), given.out)
    sample = {"relative_strengths": PRESETS[BASE]["sample"]["relative_strengths"]}
    arm = replace(ARMS[0], settings={"sample": sample, "evaluate": {"perceptual": False}})
    print_separation(judge_arms(bench, arm, prepare_manifest(given.pairs, given.node_modules, given.out), SEEDS, None))


if __name__ == "__main__":
    main()
