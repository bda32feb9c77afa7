"""Does the verdict tell good adapters from overfitted ones? The same pairs trained by the recipe and for ten times its steps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.figures import print_figure
from benchmarks.quality.arms import Workbench, run_arm
from benchmarks.quality.protocol import Arm
from pairlora.config import TrainConfig
from pairlora.report.collection import PairContents
from pairlora.report.verdicts import find_out

TIMES = 10
"""How much longer the overfitted adapters are trained."""
SHOWN = ("direction", "structure_ssim", "structure_similarity", "content_leakage", "subject_leakage", "diversity")


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
    return {"verdict": finding.judgement.verdict, "strength": strength, **means, "reasons": "; ".join(finding.judgement.reasons)}


def print_separation(judged: pd.DataFrame) -> None:
    """How many adapters are judged as what they are: good ones not rejected, overfitted ones not accepted and told by a fault."""
    good, overfitted = (judged[judged.kind == kind].verdict for kind in ("good", "overfitted"))
    print(judged.to_string(index=False, float_format="{:.2f}".format))
    print_figure("verdict.separated", int((good == "accept").sum() + (overfitted != "accept").sum()), round(len(judged) * 14 / 16))
