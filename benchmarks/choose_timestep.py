"""Choose the timestep at which inverted assets are drawn on, with assets and adapters that `benchmarks.catalogue` does not use.

    python -m benchmarks.choose_timestep --node-modules DIR --store build/demo --out build/timestep

Prints, by timestep and by the share of λ_cfg over the one that the demo's report recommends, how many of the styled assets come
nearer to the designers' own drawings than strength 0.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmarks.catalogue import (
    ADAPTERS,
    ASSETS,
    MEASURES,
    SEED,
    Measured,
    choose_contents,
    configure,
    copy_store,
    read_recommended,
    write_catalogue,
)
from embedded_base.drawings import Drawings
from pairlora.bases import load_base
from pairlora.evaluation.encoders import ClipEncoder, PerceptualEncoder
from pairlora.evaluation.scoring import Scorer
from pairlora.store.run_store import RunStore

OTHER_ASSETS, OTHER_SEED = 24, 1
TIMESTEPS = (600, 800)
FACTORS = (1.0, 1.5)
"""Shares of λ_cfg over the recommended one: a timestep might suit another strength better."""


def try_timesteps(manifest: Path, place: Path, timesteps: Sequence[int]) -> Iterator[dict]:
    """One row for each timestep, adapter and factor, with the share of assets that came nearer by each measure."""
    base, store, scorer = load_base("embedded"), RunStore(str(place)), Scorer(ClipEncoder("embedded"), PerceptualEncoder())
    for timestep in timesteps:
        for adapter, share in read_recommended(place).items():
            if adapter in ADAPTERS:
                continue
            shares = [share * factor for factor in FACTORS]
            run = configure(manifest, place, "invert", (adapter,), timestep, relative_strengths=(0.0, *shares))
            measured = Measured(run, base, store, scorer)
            for factor, tried in zip(FACTORS, shares, strict=True):
                better = {measure: measured.compare_truth(measure, {adapter: tried}).mean() for measure in MEASURES}
                yield {"timestep": timestep, "adapter": adapter, "factor": factor} | better
            print(f"timestep {timestep}: {adapter}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node-modules", type=Path, required=True, help="folder with the npm packages of the drawings")
    parser.add_argument("--store", type=Path, required=True, help="store of the demo, whose adapters are used; it stays as it is")
    parser.add_argument("--out", type=Path, required=True, help="folder of catalogue and results")
    parser.add_argument("--timesteps", type=int, nargs="+", default=TIMESTEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    slugs = choose_contents(OTHER_ASSETS, OTHER_SEED, without=choose_contents(ASSETS, SEED))
    manifest = write_catalogue(arguments.out / "pictures", Drawings(arguments.node_modules), slugs)
    place = copy_store(arguments.store, arguments.out)
    rows = pd.DataFrame(try_timesteps(manifest, place, arguments.timesteps))
    print(rows.round(3).to_string(index=False))
    print(rows.groupby(["timestep", "factor"])[list(MEASURES)].mean().round(3).to_string())


if __name__ == "__main__":
    main()
