"""A store with two trained styles of the embedded base, a catalogue to draw in them, and what does its runs in this process."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from real_run import EXAMPLES, Night, write_manifest

from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.pipeline import CataloguePipeline
from pairlora.catalogue.records import CataloguePlan
from pairlora.catalogue.runs import close_catalogue, open_catalogue
from pairlora.records import Outcome
from pairlora.report import ReportSummary

STEPS = 4
PROMPT = "a flat icon of a hamburger, centred on white"
INK = "fox-high-contrast"


def write_catalogue(folder: Path, rows: Mapping[str, Image.Image | bytes], **columns: Any) -> Path:
    """A catalogue of pictures by file name; ids are the names without suffix, and `columns` give every row the same cells."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, picture in rows.items():
        if isinstance(picture, bytes):
            (folder / name).write_bytes(picture)
        else:
            picture.save(folder / name)
        lines.append({"asset_id": name.rpartition(".")[0], "image": name, "prompt": PROMPT} | columns)
    path = folder / "catalogue.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def open_drawing(name: str = "hamburger", size: int | None = None) -> Image.Image:
    """A flat drawing of the examples."""
    picture = Image.open(EXAMPLES / "pictures" / f"{name}-flat.png").convert("RGB")
    return picture.resize((size, size), Image.Resampling.LANCZOS) if size else picture


class Stock:
    """A base, loaded once, and a store with the adapters of the two example pairs."""

    def __init__(self, base: Any, folder: Path):
        self.night = Night(base, write_manifest(folder), str(folder / "store"))
        self.store = self.night.store
        self.pairs = self.night.run()

    def configure(self, catalogue: Path, *adapters: str, **settings: Any) -> CatalogueConfig:
        values = {"manifest": str(catalogue), "output": {"url": self.night.output}, "adapters": adapters or (INK,)}
        sample = {"steps": STEPS, "relative_strengths": (0.0, 1.0)} | settings.pop("sample", {})
        return CatalogueConfig.model_validate(values | {"sample": sample} | settings)

    def do(self, run: CatalogueConfig, plan: CataloguePlan) -> list[Outcome]:
        """All shards of a plan, as a worker does them."""
        pipeline = CataloguePipeline(run, plan.run_id, self.night.base, self.store, self.night.scorer)
        return [outcome for shard in plan.shards for outcome in pipeline.stylize_shard(shard)]

    def stylize(self, catalogue: Path, *adapters: str, **settings: Any) -> ReportSummary:
        """A whole catalogue, to the report."""
        run = self.configure(catalogue, *adapters, **settings)
        plan = open_catalogue(run)
        self.do(run, plan)
        return close_catalogue(run, plan, [])
