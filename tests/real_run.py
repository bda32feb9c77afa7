"""A run of real pairs on the embedded base, short enough for a test: opened, done in this process, and closed with its report."""

import json
from pathlib import Path
from typing import Any

from pairlora.config import RunConfig
from pairlora.evaluation.encoders import ClipEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.execution.pipeline import ShardPipeline
from pairlora.execution.runs import close_run, open_run
from pairlora.records import Outcome, Plan
from pairlora.report import ReportSummary
from pairlora.store.run_store import RunStore

EXAMPLES = Path(__file__).parents[1] / "examples" / "fluent"
QUICK: dict[str, Any] = {
    "train": {"steps": 3, "content_steps": 1, "draws": 1},
    "sample": {"steps": 2, "relative_strengths": (0.0, 0.5, 1.0), "lora_weights": ()},
}


def write_manifest(folder: Path) -> Path:
    """The two example pairs with two prompts each, in two groups."""
    rows = [json.loads(line) for line in (EXAMPLES / "two-pairs.jsonl").read_text().splitlines()]
    for row, group in zip(rows, ("gradients", "lines"), strict=True):
        prompts = row["test_prompts"][:2]
        for name in ("content", "style"):
            row[name] = copy_picture(folder, row[name])
        row |= {
            "test_prompts": prompts,
            "truth": {prompt: copy_picture(folder, row["truth"][prompt]) for prompt in prompts},
            "group": group,
        }
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def copy_picture(folder: Path, name: str) -> str:
    """A picture of the examples beside the manifest, which may name nothing outside its folder."""
    copy = folder / Path(name).name
    copy.write_bytes((EXAMPLES / name).read_bytes())
    return copy.name


class Night:
    """Runs of one manifest on a base that is loaded once."""

    def __init__(self, base: Any, manifest: Path, output: str):
        self.base = base
        self.manifest = manifest
        self.output = output
        self.store = RunStore(output)
        self.scorer = Scorer(ClipEncoder("embedded"), None)

    def configure(self, **settings: Any) -> RunConfig:
        return RunConfig.model_validate({"manifest": str(self.manifest), "output": {"url": self.output}} | QUICK | settings)

    def run(self, **settings: Any) -> ReportSummary:
        """The whole manifest, to the report."""
        run = self.configure(**settings)
        plan = open_run(run)
        self.do(run, plan)
        return close_run(run, plan, [])

    def do(self, run: RunConfig, plan: Plan) -> list[Outcome]:
        """All shards of a plan, as a worker does them."""
        pipeline = ShardPipeline(run, plan.run_id, self.base, self.store, self.scorer)
        return [outcome for shard in plan.shards for outcome in pipeline.customize_shard(shard)]
