"""Is the joint update harmless? The same pairs trained by it and by the published, alternating order, on the embedded base.

    python -m benchmarks.updates [--full] [--seeds N] [--steps N] [--drawings N]

Two gradient and two high-contrast pairs of examples/fluent. Losses are taken on draws that no training saw, similarity to the
ground truth on pictures of every test prompt at the preset's strongest useful strength; the difference of the orders stands beside
the spread over training seeds. Ends with lines `FIGURE <name> <value> <target> <ok|short>`.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from PIL import Image

from benchmarks.figures import print_figure
from pairlora.adapters import Role
from pairlora.bases import load_base
from pairlora.bases.interface import Base
from pairlora.config import SampleConfig, TrainConfig
from pairlora.evaluation.encoders import PerceptualEncoder
from pairlora.evaluation.metrics import cosine
from pairlora.execution.pipeline import style_attached
from pairlora.images import fit_pair
from pairlora.presets import PRESETS
from pairlora.sampling.sampler import ImageRequest, Sampler, StyleTerm
from pairlora.training.packs import TrainedPair, TrainingPair, open_pack, run_steps

FOLDER = Path("examples/fluent")
KINDS = ("gradient", "high-contrast")
ORDERS = ("joint", "alternating")
MEASURES = ("content_loss", "style_loss", "truth_similarity")
UNSEEN = 1_000_000
"""A step that no training reaches: its draws are new to all."""


def choose_pairs(each: int = 2) -> list[dict[str, Any]]:
    """The first pairs of the manifest of each kind."""
    rows = [json.loads(line) for line in (FOLDER / "manifest.jsonl").read_text().splitlines()]
    return [row for kind in KINDS for row in [row for row in rows if row["pair_id"].endswith(kind)][:each]]


def read_picture(name: str, size: int) -> Image.Image:
    picture = Image.open(FOLDER / name).convert("RGB")
    return fit_pair(picture, picture, size)[0]


def describe_pair(row: dict[str, Any], size: int, seed: int) -> TrainingPair:
    """What the training reads; the seed gives the pair another random stream."""
    prompt = row["content_prompt"]
    content, style = fit_pair(Image.open(FOLDER / row["content"]).convert("RGB"), Image.open(FOLDER / row["style"]).convert("RGB"), size)
    return TrainingPair(f"{row['pair_id']} {seed}", content, style, prompt, row["style_template"].replace("{prompt}", prompt))


def train_pairs(base: Base, pairs: list[TrainingPair], train: TrainConfig, draws: int) -> Iterator[tuple[TrainedPair, dict[str, float]]]:
    """Each pair's adapters, with its losses on unseen draws."""
    with open_pack(base, pairs, train) as training:
        run_steps(training, 0)
        with torch.no_grad():
            losses = training.examples.losses(training.adapters, training.alive, list(Role), UNSEEN, draws)
        trained = training.finish()
    for index, result in enumerate(trained):
        if result.error is not None:
            raise result.error
        yield result, {f"{role}_loss": losses[role][index].item() for role in Role}


def measure_similarity(base: Base, row: dict[str, Any], trained: TrainedPair, sample: SampleConfig, encoder: Any, drawings: int) -> float:
    """Mean perceptual similarity of drawings in the style to the ground truth."""
    truths = dict(list(row["truth"].items())[:drawings])
    styled = [StyleTerm(0, row["style_template"].replace("{prompt}", prompt), sample.guidance_scale) for prompt in truths]
    with style_attached(base, trained.matrices[Role.STYLE]) as adapters:
        requests = [ImageRequest(prompt, 0, (style,)) for prompt, style in zip(truths, styled, strict=True)]
        drawn = Sampler(base, adapters, sample).draw(requests)
    real = [read_picture(name, sample.size) for name in truths.values()]
    pairs = zip(encoder.embed_pictures(drawn), encoder.embed_pictures(real), strict=True)
    return fmean(cosine(one, other) for one, other in pairs)


def measure(seeds: int, steps: int | None, drawings: int) -> dict[str, dict[str, list[list[float]]]]:
    """`[order][measure][pair][seed]`."""
    base, encoder = load_base("embedded"), PerceptualEncoder()
    recipe = TrainConfig.model_validate(PRESETS["embedded"]["train"])
    if steps is not None:
        recipe = recipe.model_copy(update={"steps": steps, "content_steps": steps // 3})
    sample, rows = SampleConfig.model_validate(PRESETS["embedded"]["sample"]), choose_pairs()
    found = {order: {name: [[] for _ in rows] for name in MEASURES} for order in ORDERS}
    for seed in range(seeds):
        pairs = [describe_pair(row, recipe.resolution, seed) for row in rows]
        for order in ORDERS:
            train = recipe.model_copy(update={"update": order})
            for index, (trained, losses) in enumerate(train_pairs(base, pairs, train, 16)):
                similarity = measure_similarity(base, rows[index], trained, sample, encoder, drawings)
                for name, value in (losses | {"truth_similarity": similarity}).items():
                    found[order][name][index].append(value)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="4 seeds and 6 drawings in place of 2 and 3")
    parser.add_argument("--seeds", type=int, help="trainings of each pair by each order")
    parser.add_argument("--steps", type=int, help="steps of a training; the preset's where left out")
    parser.add_argument("--drawings", type=int, help="test prompts to draw for each training")
    given = parser.parse_args()
    seeds, drawings = given.seeds or (4 if given.full else 2), given.drawings or (6 if given.full else 3)
    torch.set_num_threads(1)
    found = measure(seeds, given.steps, drawings)
    names = [row["pair_id"] for row in choose_pairs()]
    print(f"embedded base, {seeds} seeds, {drawings} drawings each; mean of joint, of alternating, spread over seeds")
    for measured in MEASURES:
        joint, alternating = (found[order][measured] for order in ORDERS)
        for name, one, other in zip(names, joint, alternating, strict=True):
            spread = fmean((stdev(one), stdev(other))) if seeds > 1 else float("nan")
            print(f"   {measured:17} {name:28} {fmean(one):.5f} {fmean(other):.5f} {spread:.5f}")
        if seeds > 1:
            difference = abs(fmean(map(fmean, joint)) - fmean(map(fmean, alternating)))
            spread = fmean(stdev(values) for values in (*joint, *alternating))
            head = f"train.embedded.4pairs.{seeds}seeds.{torch.get_num_threads()}threads.joint_against_alternating"
            print_figure(f"{head}.{measured}_difference_over_spread", difference / spread, 1, higher=False)


if __name__ == "__main__":
    main()
