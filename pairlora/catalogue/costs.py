"""What a run over a catalogue would cost in evaluations of the denoiser, by way in; known without a model being loaded."""

from collections.abc import Sequence

from pydantic import Field

from pairlora.bases.loading import digest_base
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.planning import find_finished_assets, plan_catalogue
from pairlora.records import Record
from pairlora.sampling.row_counts import count_rows
from pairlora.sampling.trajectories import ImageRequest, StyleTerm, Timing
from pairlora.store.run_store import RunStore


class AssetCost(Record):
    """Evaluations of the denoiser for one asset; each is one row of a forward."""

    inversion: int = Field(description="to bring the asset in, once for all its adapters and strengths")
    reconstruction: int
    styles: int = Field(description="all adapters and strengths together")
    apart: int = Field(description="the same pictures with the asset brought in anew for every one of them")

    @property
    def total(self) -> int:
        return self.inversion + self.reconstruction + self.styles


class CatalogueEstimate(Record):
    """Work that is left, and what it takes by the configured way in and by the others."""

    assets: int
    unplanned: int
    reused: int
    shards: int
    adapters: tuple[str, ...]
    files: dict[str, str] = Field(default={}, description="of adapters that are files: which file, template and what is not used, by label")
    strengths: tuple[float, ...]
    way: str
    costs: dict[str, AssetCost]
    tiles: int = Field(default=1, description="tiles that an asset may be drawn in at most; each costs what an asset does")

    @property
    def evaluations(self) -> int:
        """Evaluations that are left by the configured way where every asset is drawn in one piece."""
        return (self.assets - self.reused) * self.costs[self.way].total

    @property
    def most_evaluations(self) -> int:
        """Evaluations that are left where every asset is drawn in as many tiles as it may be."""
        return self.tiles * self.evaluations

    def describe(self) -> dict[str, str]:
        """The estimate in words."""
        words = {
            "assets": f"{self.assets} in {self.shards} shards, {self.reused} of them in the store already",
            "cannot be done": f"{self.unplanned} rows" if self.unplanned else "none",
            "adapters": ", ".join(self.adapters),
            **{f"file of {label}": words for label, words in self.files.items()},
            "strengths": ", ".join(f"{strength:g}" for strength in self.strengths),
        }
        each = "an asset" if self.tiles == 1 else "a tile"
        for way, cost in self.costs.items():
            parts = f"{cost.inversion} to bring it in, {cost.reconstruction} for strength 0, {cost.styles} for the styles"
            words[way] = f"{cost.total} evaluations {each}: {parts}; {cost.apart} if every picture began anew"
            if way == "control":
                words[way] += "; as many of the ControlNet beside them"
        if self.tiles == 1:
            return words | {"left": f"{self.evaluations:,} evaluations by '{self.way}'"}
        left = f"{self.evaluations:,} to {self.most_evaluations:,} evaluations by '{self.way}', by how large the assets are"
        return words | {"left": left}


def estimate_catalogue(run: CatalogueConfig) -> CatalogueEstimate:
    """Plan a run without opening it, and compare it with the store. Writes nothing."""
    store = RunStore(run.output.url, timeout=run.output.timeout_seconds)
    plan = plan_catalogue(run, store, digest_base(run.base.name, run.base.revision, run.base.config))
    ways = {way: run.model_copy(update={"entry": run.entry.model_copy(update={"way": way})}) for way in run.ways}
    return CatalogueEstimate(
        assets=len(plan.jobs),
        unplanned=len(plan.unplanned),
        reused=len(find_finished_assets(store, plan, forget=False).outcomes),
        shards=len(plan.shards),
        adapters=tuple(adapter.label for adapter in plan.adapters),
        files={adapter.label: adapter.file.words for adapter in plan.adapters if adapter.file},
        strengths=run.strengths,
        way=run.entry.way,
        tiles=run.tiles.most,
        costs={way: count_evaluations(chosen, len(plan.adapters)) for way, chosen in ways.items()},
    )


def count_evaluations(run: CatalogueConfig, adapters: int) -> AssetCost:
    """The evaluations of one asset, on evenly spaced timesteps."""
    timing = Timing.evenly(run.drawing)
    plain = ImageRequest("prompt", 0, origin="asset")
    styled = [ImageRequest("prompt", 0, (StyleTerm(0, "styled", strength),), "asset") for strength in run.strengths if strength]
    reconstruction = _count(timing, [plain])
    inversion = (1 + run.entry.refinements) * reconstruction if run.entry.way == "invert" else 0
    if run.entry.net is not None and run.entry.evaluates:
        inversion = count_rows([plain], timing) - reconstruction
    return AssetCost(
        inversion=inversion,
        reconstruction=reconstruction,
        styles=adapters * _count(timing, styled),
        apart=inversion + reconstruction + adapters * sum(inversion + _count(timing, [one]) for one in styled),
    )


def _count(timing: Timing, requests: Sequence[ImageRequest]) -> int:
    return count_rows(requests, timing, known={request.prefix for request in requests}) if requests else 0
