"""The report of many pairs: how long it takes to build, how soon its first page is seen, and what it weighs.

    PYTHONPATH=tests python -m benchmarks.report_pages [--pairs 500] [--prompts 6] [--work FOLDER]

A run is staged as the pipeline would leave it, without any training: drawings of the examples in other colours, random scores, two
seeds, four strengths. Ends with lines `FIGURE <name> <value> <target> <ok|short>`; sizes have no target and are stated.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from chromium import open_tab
from PIL import Image
from staged_run import SEEDS, Staged, digest

from benchmarks.figures import print_figure, state_figure
from pairlora.config import EvaluateConfig, RunConfig
from pairlora.execution.runs import rebuild_report

STRENGTHS = (0.0, 0.625, 1.25, 2.5)
PROMPTS = tuple(f"a flat icon of a {thing}, centred on white" for thing in ("cat face", "penguin", "red apple", "pizza", "car", "guitar"))
PICTURES = Path(__file__).parents[1] / "examples" / "fluent" / "pictures"
BUILD_SECONDS, PAINT_SECONDS = 180, 2
THREADS = 8
VISITS = 5


@cache
def read_drawings() -> tuple[np.ndarray, ...]:
    """The drawings of the examples at 64 pixels, (64, 64, 3)."""
    return tuple(np.asarray(Image.open(path).convert("RGB").resize((64, 64))) for path in sorted(PICTURES.glob("*.png")))


class LargeRun(Staged):
    """A staged run whose pictures weigh what drawn ones do: a drawing of the examples in colours of its own, with a little grain."""

    def draw(self, *parts: object) -> Image.Image:
        rng = np.random.default_rng(int(digest(*parts)[:8], 16))
        drawings = read_drawings()
        picture = drawings[rng.integers(len(drawings))] * rng.uniform(0.5, 1.0, 3) + rng.normal(0, 2, (64, 64, 3))
        return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))

    def configure(self) -> RunConfig:
        run = super().configure()
        sample = run.sample.model_copy(update={"relative_strengths": tuple(strength / 2.5 for strength in STRENGTHS)})
        evaluate = run.evaluate.model_copy(update={"bootstrap_samples": EvaluateConfig().bootstrap_samples})
        return run.model_copy(update={"sample": sample, "evaluate": evaluate})


def stage_large_run(folder: Path, pairs: int, prompts: Sequence[str], *, night: int = 0) -> LargeRun:
    """A night of pairs that are all done."""
    run = LargeRun(folder, night)

    def stage_pair(row: int) -> None:
        job = run.add_job(row, f"pair-{row:03d}", prompts=prompts, truth=True)
        run.settle(job, train_seconds=40.0 + row % 7, draw_seconds=9.0)
        run.add_adapter(job)
        for prompt in prompts:
            for seed in SEEDS:
                for strength in STRENGTHS:
                    run.add_image(job, prompt, seed, strength)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(stage_pair, range(1, pairs + 1)))
    run.write()
    return run


def visit_page(page: Path) -> tuple[float, float, float]:
    """Seconds to the first paint, to the end of loading, and of one filtered search, each in a fresh Chromium; medians of some visits."""
    visits = []
    for _ in range(VISITS):
        with tempfile.TemporaryDirectory() as profile, open_tab(Path(profile)) as tab:
            tab.open(page.as_uri())
            tab.wait("performance.getEntriesByName('first-contentful-paint').length")
            paint = tab.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            loaded = tab.run("performance.getEntriesByType('navigation')[0].loadEventEnd")
            search = tab.run(
                """(() => { const text = document.getElementById("controls").elements.text; const start = performance.now();
                text.value = "pair-01"; text.dispatchEvent(new Event("input", {bubbles: true})); document.body.offsetHeight;
                return performance.now() - start; })()"""
            )
            visits.append((paint, loaded, search))
    return tuple(float(np.median(times)) / 1000 for times in zip(*visits, strict=True))


def weigh_folder(folder: Path) -> int:
    """Bytes of all files of a report."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--prompts", type=int, default=6, choices=range(1, len(PROMPTS) + 1))
    parser.add_argument("--work", type=Path, default=Path("build/report-bench"), help="emptied at the beginning")
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    started = time.monotonic()
    run = stage_large_run(given.work, given.pairs, PROMPTS[: given.prompts])
    print(f"{given.pairs} pairs with {len(run.references)} pictures staged in {time.monotonic() - started:.0f} s", flush=True)
    started, used = time.monotonic(), time.process_time()
    page = Path(rebuild_report(run.store).report_url)
    seconds = time.monotonic() - started
    print(f"built in {seconds:.0f} s, {time.process_time() - used:.0f} s of them on a core", flush=True)
    paint, loaded, search = visit_page(page)
    pages = [path.stat().st_size for path in page.parent.glob("pairs/*.html")]
    print_figure("report.build_seconds", seconds, BUILD_SECONDS, higher=False)
    print_figure("report.first_paint_seconds", paint, PAINT_SECONDS, higher=False)
    state_figure("report.load_seconds", loaded)
    state_figure("report.search_seconds", search)
    state_figure("report.index_megabytes", page.stat().st_size / 1e6)
    state_figure("report.pair_page_megabytes", max(pages) / 1e6)
    state_figure("report.folder_megabytes", weigh_folder(page.parent) / 1e6)


if __name__ == "__main__":
    main()
