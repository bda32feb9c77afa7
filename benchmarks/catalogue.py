"""A catalogue of drawings that no adapter was trained on, in three styles and by both ways in, against the designers' own drawings.

    python -m benchmarks.catalogue --node-modules DIR --store build/demo --out build/catalogue

The adapters are those of the demo. Strengths are those that the demo's report recommends for each pair, as shares of the guidance scale, so
nothing is chosen here.
Ends with lines `FIGURE <name> <value> <target> <ok|short>`.
"""

import argparse
import json
import random
import shutil
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.figures import print_figure
from embedded_base.captions import write_caption
from embedded_base.contents import CONTENTS
from embedded_base.drawings import HELD_OUT_SETS, SIZE, Drawings, lay_out
from embedded_base.write_examples import FLAT, GROUPS, LICENCE, SUBJECTS
from pairlora.bases import load_base
from pairlora.catalogue.config import WAYS, CatalogueConfig
from pairlora.catalogue.costs import count_evaluations
from pairlora.catalogue.pipeline import CataloguePipeline
from pairlora.catalogue.records import CataloguePlan
from pairlora.catalogue.runs import close_catalogue, open_catalogue
from pairlora.catalogue.work import AssetWork
from pairlora.config import SampleConfig
from pairlora.evaluation.encoders import ClipEncoder, PerceptualEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.presets import PRESETS
from pairlora.store.run_store import RunStore

ADAPTERS = ("cow-face-gradient", "fox-high-contrast", "rocket-gradient")
ASSETS, SEED = 50, 0
TIMESTEPS = {"invert": 800, "noise": 600}
"""Where drawing starts, by way in; that of 'invert' was chosen by `benchmarks.choose_timestep` on other assets and adapters."""
LOST_DECIBELS, BETTER_SHARE = 3.0, 0.8
COMPARED_ASSETS = 8
MEASURES = ("truth_similarity", "truth_perceptual_similarity")
"""Likeness to what the designers drew: by the embedded CLIP, and by features that nobody here trained."""


def choose_contents(count: int, seed: int, without: Collection[str] = ()) -> list[str]:
    """Contents that no adapter of the demo was trained on, and none of `without`."""
    trained = {slug for slugs in SUBJECTS.values() for slug in slugs}
    return random.Random(seed).sample(sorted(set(CONTENTS) - trained - set(without)), count)


def write_catalogue(folder: Path, drawings: Drawings, slugs: Sequence[str]) -> Path:
    """Flat drawings with the designers' own drawings in the other styles as truth, by the group of the adapters' pairs."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(drawn_by: str, slug: str) -> str:
        name = f"{slug}-{GROUPS.get(drawn_by, 'flat')}.png"
        lay_out(drawings.render(drawn_by, slug)).save(folder / name)
        return name

    rows = [
        {
            "asset_id": slug,
            "image": write(FLAT, slug),
            "prompt": write_caption(slug, FLAT),
            "truth": {GROUPS[style]: write(style, slug) for style in HELD_OUT_SETS},
            "licence": LICENCE,
        }
        for slug in slugs
    ]
    path = folder / "catalogue.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def copy_store(store: Path, out: Path) -> Path:
    """A copy of a demo's store below `out`, in which drawings are made; the demo stays as it is."""
    place = out / "store"
    if not place.exists():
        shutil.copytree(store, place)
    return place


def configure(manifest: Path, store: Path, way: str, adapters: Sequence[str], timestep: int, **sample: Any) -> CatalogueConfig:
    settings: dict[str, Any] = {
        "manifest": str(manifest),
        "output": {"url": str(store)},
        "adapters": adapters,
        "entry": {"way": way, "timestep": timestep},
        "sample": sample,
        "evaluate": {"perceptual": True},
        "shard_assets": ASSETS,
    }
    return CatalogueConfig.model_validate(settings)


def forget_drawings(store: RunStore) -> None:
    """Have everything that catalogues drew here drawn again, so that the next one's time is that of all of it."""
    for kind in ("asset", "styled", "inversion"):
        for key in store.list_done(kind):
            store.drop_marker(kind, key)


class Measured:
    """One way in: the tables of its run, and what the drawing took."""

    def __init__(self, run: CatalogueConfig, base: Any, store: RunStore, scorer: Scorer):
        self.run, self.store = run, store
        self.plan: CataloguePlan = open_catalogue(run)
        self.pipeline = CataloguePipeline(run, self.plan.run_id, base, store, scorer)
        outcomes = [outcome for shard in self.plan.shards for outcome in self.pipeline.stylize_shard(shard)]
        drawn = max(1, len(outcomes))  # none where an earlier call drew everything
        self.seconds = sum(outcome.draw_seconds for outcome in outcomes) / drawn
        self.rows = self.pipeline.drawing.rows_computed / drawn
        self.summary = close_catalogue(run, self.plan, [])
        self.assets = pd.read_parquet(self.summary.table_urls["assets"])
        self.scores = pd.read_parquet(self.summary.table_urls["scores"])

    def compare_truth(self, measure: str, recommended: dict[str, float]) -> pd.Series:
        """Whether the styled asset is nearer to the truth than strength 0, by (adapter, asset), at the recommended shares."""
        table = self.scores[self.scores.metric == measure].pivot(index=["adapter", "asset_id"], columns="strength", values="value")
        scale = self.run.drawing.guidance_scale
        better = {key: row[recommended[key[0]] * scale] > row[0.0] for key, row in table.iterrows()}  # pyright: ignore[reportIndexIssue]
        return pd.Series(better)

    def draw_anew(self, count: int) -> tuple[float, float]:
        """Evaluations and seconds an asset where every picture of every strength begins at the asset again."""
        rows, started = self.pipeline.drawing.rows_computed, time.monotonic()
        jobs = self.plan.jobs[:count]
        count = len(jobs)
        for place in range(1 + len(ADAPTERS) * (len(self.run.strengths) - 1)):
            works = [AssetWork(job) for job in jobs]
            for work in works:
                self.pipeline._open(work, self.plan.adapters)
                self.store.drop_marker("inversion", work.pieces[0].origin)
                work.planned, work.known = [work.planned[place]], {}
            side = self.run.sample.size
            list(self.pipeline.drawing.draw(works, (side, side)))
        return (self.pipeline.drawing.rows_computed - rows) / count, (time.monotonic() - started) / count


def read_recommended(store: Path) -> dict[str, float]:
    """The strength that the demo's newest report recommends for each pair that has one, over the guidance scale of its run."""
    report = sorted(path for path in store.glob("runs/*/report") if not path.parent.name.startswith("catalogue-"))[-1]
    pairs = pd.read_parquet(report / "pairs.parquet", columns=["pair_id", "recommended_strength"])
    scale = SampleConfig.model_validate(PRESETS["embedded"]["sample"]).guidance_scale
    recommended = {name: share for name, share in zip(pairs.pair_id, pairs.recommended_strength / scale, strict=True) if share > 0}
    if missing := [name for name in ADAPTERS if name not in recommended]:
        raise SystemExit(f"{store} recommends no strength for {', '.join(missing)}; run `make demo` first")
    return recommended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node-modules", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True, help="store of the demo, whose adapters are used; it stays as it is")
    parser.add_argument("--out", type=Path, required=True, help="folder of catalogue and results")
    parser.add_argument("--assets", type=int, default=ASSETS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    place = copy_store(arguments.store, arguments.out)
    manifest = write_catalogue(arguments.out / "pictures", Drawings(arguments.node_modules), choose_contents(arguments.assets, SEED))
    recommended = read_recommended(place)
    base, store, scorer = load_base("embedded"), RunStore(str(place)), Scorer(ClipEncoder("embedded"), PerceptualEncoder())
    print(
        f"{arguments.assets} assets of {SIZE} pixels; strengths over λ_cfg: "
        + ", ".join(f"{name} {recommended[name]:g}" for name in ADAPTERS)
    )
    measured = {}
    for way in WAYS:
        forget_drawings(store)
        measured[way] = Measured(configure(manifest, place, way, ADAPTERS, TIMESTEPS[way]), base, store, scorer)
    for way, one in measured.items():
        tell_costs(way, one)
    assets = measured["invert"].assets
    lost = (assets.autoencoder_psnr - assets.reconstruction_psnr).mean()
    print(f"invert: reconstruction {assets.reconstruction_psnr.mean():.2f} dB, autoencoder {assets.autoencoder_psnr.mean():.2f} dB")
    print(f"noise: strength 0 {measured['noise'].assets.reconstruction_psnr.mean():.2f} dB")
    for way, one in measured.items():
        tell_truth(way, one, recommended)
    print_figure("catalogue.invert.decibels_lost", lost, LOST_DECIBELS, higher=False)
    for way, one in measured.items():
        for measure in MEASURES:
            print_figure(f"catalogue.{way}.{measure}_better", one.compare_truth(measure, recommended).mean(), BETTER_SHARE)
    print(measured["invert"].summary.report_url)


def tell_costs(way: str, one: Measured) -> None:
    """Evaluations and seconds an asset, shared and begun anew for every picture, beside what the plan says."""
    planned = count_evaluations(one.run, len(ADAPTERS))
    rows, seconds = one.draw_anew(COMPARED_ASSETS)
    print(f"{way}: {one.rows:.1f} evaluations and {one.seconds:.2f} s an asset (planned {planned.total}), files and markers included")
    print(
        f"{way}, begun anew for every picture: {rows:.1f} evaluations and {seconds:.2f} s an asset (planned {planned.apart}), drawing alone"
    )


def tell_truth(way: str, one: Measured, recommended: dict[str, float]) -> None:
    """The share of assets that came nearer to the truth, by adapter."""
    for measure in MEASURES:
        shares = one.compare_truth(measure, recommended).groupby(level=0).mean()
        print(f"{way}, {measure}: " + ", ".join(f"{adapter} {share:.0%}" for adapter, share in shares.items()))


if __name__ == "__main__":
    main()
