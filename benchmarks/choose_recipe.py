"""Compare training recipes of the embedded base on the two validation pairs, which are not among the examples.

    python benchmarks/choose_recipe.py OUTPUT train.learning_rate=0.002 train.learning_rate=0.004,train.steps=80 …

Each argument is one recipe: settings over the preset, separated by commas; a comma inside a value is written `;`.
Prints, per recipe, pair and strength, the gain on the ground truth by perceptual features, direction and structure;
`*` marks the strength that the rule recommends.
"""

import sys
from pathlib import Path

import pandas as pd
import torch

from pairlora.bases import load_base
from pairlora.cli.main import build_run
from pairlora.evaluation.encoders import ClipEncoder, PerceptualEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.pipeline import ShardPipeline
from pairlora.execution.runs import close_run, open_run
from pairlora.store.run_store import RunStore

MANIFEST = "examples/fluent/validation.jsonl"
SHOWN = ["truth_perceptual_gain", "truth_gain", "direction", "structure_ssim", "content_leakage"]


def try_recipe(output: str, settings: list[str], base, scorer: Scorer) -> pd.DataFrame:
    """Run the validation pairs with a recipe and return the report's means by pair and strength."""
    run = build_run(None, manifest=MANIFEST, output=output, base="embedded", settings=["evaluate.perceptual=true", *settings])
    plan = open_run(run)
    pipeline = ShardPipeline(run, plan.run_id, base, RunStore(output), scorer)
    for shard in plan.shards:
        pipeline.customize_shard(shard)
    summary = close_run(run, plan, [])
    table = pd.read_parquet(Path(summary.report_url).with_name("summaries.parquet")).query("prompt == '' and metric in @SHOWN")
    means = table.pivot_table(index=["pair_id", "strength"], columns="metric", values="value")[SHOWN]
    low = table.query("metric == 'truth_perceptual_gain'").set_index(["pair_id", "strength"])["low"]
    means.insert(1, "low", low)
    recommended = pd.Series(summary.recommended_strengths)
    means["rule"] = ["*" if recommended[pair] == strength else "" for pair, strength in means.index]
    return means.round(3)


def main() -> None:
    torch.set_num_threads(1)
    output, *recipes = sys.argv[1:]
    base, scorer = load_base("embedded"), Scorer(ClipEncoder("embedded"), PerceptualEncoder())
    for recipe in recipes or [""]:
        table = try_recipe(output, [setting.replace(";", ",") for setting in recipe.split(",") if setting], base, scorer)
        print(f"\n{recipe or 'preset'}\n{table.to_string()}", flush=True)


if __name__ == "__main__":
    main()
