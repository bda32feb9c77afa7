"""Measure the shipped base and its CLIP against the real drawings. Ends with lines `FIGURE <name> <value> <target> <ok|short>`.

Retrieval: each canonical flat drawing that the base makes, against the real flat drawings of all known contents, by two encoders.
Layout: two seeds of a prompt agree in what is foreground where the prompt names a layout, and differ where it does not.
Example pairs: how many of them gain on the ground truth at the recommended strength, read from the report of a demo.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from benchmarks.demo_figures import CLIP, PERCEPTUAL, TARGETS, count_gains, find_report, measure_pairs
from benchmarks.figures import print_figure
from embedded_base.captions import CANONICAL, write_caption
from embedded_base.contents import CONTENTS, name_content
from embedded_base.drawings import ALL_SETS, HELD_OUT_SETS, SIZE
from embedded_base.pictures import FLAT, split_contents
from embedded_base.train_autoencoder import measure_psnr, to_tensor
from embedded_base.train_clip import SET_WORDS
from pairlora.bases import load_base
from pairlora.config import SampleConfig
from pairlora.evaluation.encoders import ClipEncoder, PerceptualEncoder, PictureEncoder
from pairlora.presets import PRESETS
from pairlora.sampling.sampler import ImageRequest, Sampler

WEIGHTS = Path(__file__).parents[1] / "pairlora" / "bases" / "embedded"
MEGABYTES = 40
TIMED_PICTURES, TIMED_SECONDS = 512, 120
TIMES_CHANCE = 10
"""Picture to picture across sets, of contents never seen: how many times better than a guess among all."""
NAMED_TOP1 = 0.5
DIRECTION_MARGIN = 0.1
"""Mean cosine of one change of style on two contents, less that of two different changes: else `direction` tells nothing."""


def retrieve(queries: Tensor, gallery: Tensor, top: int) -> float:
    """Share of the queries (n, width) whose own row of the gallery (n, width) is among the nearest `top`."""
    ranks = (queries @ gallery.T).argsort(dim=1, descending=True).eq(torch.arange(len(queries))[:, None]).float().argmax(dim=1)
    return (ranks < top).float().mean().item()


def to_pictures(pixels: np.ndarray) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in pixels]


class RealDrawings:
    """The canonical drawings of all sets: (sets, contents, height, width, 3)."""

    def __init__(self, work: Path):
        stored = np.load(work / "canonical.npz")
        self.slugs, self.pictures = list(stored["slugs"]), stored["pictures"]
        self.held_out = [self.slugs.index(slug) for slug in split_contents(self.slugs)[1]]
        self.known = [self.slugs.index(slug) for slug in CONTENTS]

    def select(self, drawn_by: str, rows: Sequence[int]) -> np.ndarray:
        return self.pictures[ALL_SETS.index(drawn_by), rows]


def measure_autoencoder(real: RealDrawings) -> None:
    """PSNR in dB on contents that it has never seen, by set."""
    print_figure("base.held_out_contents", len(real.held_out), 100)
    model = AutoencoderKL.from_pretrained(WEIGHTS / "vae").float().eval()
    for name in ALL_SETS:
        print_figure(f"base.psnr_{name}", measure_psnr(model, to_tensor(real.select(name, real.held_out))), 26)


def measure_clip(real: RealDrawings, clip: ClipEncoder) -> None:
    """Retrieval across sets on contents that it has never seen, names of known contents, and what `direction` means."""
    unseen = {name: clip.embed_pictures(to_pictures(real.select(name, real.held_out))) for name in ALL_SETS}
    for name in ALL_SETS[1:]:
        found = [retrieve(unseen[name], unseen[FLAT], top) for top in (1, 5)]
        print(f"CLIP, {name} → {FLAT}, {len(real.held_out)} unseen contents: top 1 {found[0]:.3f}, top 5 {found[1]:.3f}")
        print_figure(f"base.clip_picture_to_picture_top5_{name}", found[1], TIMES_CHANCE * 5 / len(real.held_out))
    for name in ALL_SETS:
        read = clip.embed_prompts([SET_WORDS[name].format(name_content(slug)) for slug in CONTENTS])
        seen = clip.embed_pictures(to_pictures(real.select(name, real.known)))
        print_figure(f"base.clip_name_to_picture_top1_{name}", retrieve(read, seen, 1), NAMED_TOP1)
    measure_directions({name: F.normalize(unseen[name] - unseen[FLAT], dim=-1) for name in ALL_SETS[1:]})


def measure_directions(changes: dict[str, Tensor]) -> None:
    """Mean cosine between changes (contents, width) from flat to each set, of different contents: like for one style, unlike for two."""
    for first in HELD_OUT_SETS:
        means = {}
        for second, others in changes.items():
            cosines = changes[first] @ others.T
            means[second] = cosines[~torch.eye(len(cosines), dtype=torch.bool)].mean().item()
            print(f"direction, flat → {first} against flat → {second}, different contents: mean cosine {means[second]:.3f}")
        same = means.pop(first)
        print_figure(f"base.direction_margin_{first}", same - max(means.values()), DIRECTION_MARGIN)


def measure_contents(real: RealDrawings, sampler: Sampler, encoders: dict[str, tuple[PictureEncoder, float]]) -> None:
    """Retrieval of what the base draws from the canonical prompts among the real drawings."""
    drawn = sampler.draw([ImageRequest(write_caption(slug, FLAT), seed=0) for slug in CONTENTS])
    originals = to_pictures(real.select(FLAT, real.known))
    for name, (encoder, target) in encoders.items():
        queries, gallery = encoder.embed_pictures(drawn), encoder.embed_pictures(originals)
        print(f"{name}: top 1 of {len(CONTENTS)} drawn contents among the real ones {retrieve(queries, gallery, 1):.3f}")
        print_figure(f"base.retrieved_by_{name}_top5", retrieve(queries, gallery, 5), target)


def find_foreground(picture: Image.Image) -> np.ndarray:
    """(height, width) bool: what differs from the colour of the corners."""
    pixels = np.asarray(picture, dtype=np.float32)
    corners = np.median(pixels[[0, 0, -1, -1], [0, -1, 0, -1]], axis=0)
    return np.abs(pixels - corners).max(axis=2) > 40


def overlap(first: Image.Image, second: Image.Image) -> float:
    """Intersection over union of the foregrounds of two pictures."""
    one, two = find_foreground(first), find_foreground(second)
    return float((one & two).sum() / max(1, (one | two).sum()))


def measure_layouts(sampler: Sampler, contents: Sequence[str]) -> None:
    """How well two seeds of one prompt overlap, with the layout in the prompt and without."""
    for name, layout, target, higher in (("named", CANONICAL, 0.8, True), ("free", None, 0.6, False)):
        prompts = [write_caption(slug, FLAT, layout) for slug in contents]
        drawn = sampler.draw([ImageRequest(prompt, seed) for prompt in prompts for seed in (0, 1)])
        mean = np.mean([overlap(*drawn[index : index + 2]) for index in range(0, len(drawn), 2)])
        print_figure(f"base.layout_overlap_{name}", float(mean), target, higher=higher)


def time_drawing(base, sample: SampleConfig) -> None:
    """A batch of pictures at 25 steps with classifier-free guidance, on the threads that torch has."""
    started, busy = time.monotonic(), time.process_time()
    Sampler(base, None, sample.model_copy(update={"steps": 25})).draw(
        [ImageRequest(write_caption(CONTENTS[index % len(CONTENTS)], FLAT), index) for index in range(TIMED_PICTURES)]
    )
    seconds, busy = time.monotonic() - started, time.process_time() - busy
    threads = torch.get_num_threads()
    print(f"{TIMED_PICTURES} pictures of {SIZE} pixels, 25 steps, {threads} threads: {seconds:.0f} s, {busy:.0f} s on processors")
    print_figure(f"base.processor_seconds_{TIMED_PICTURES}_pictures", busy, TIMED_SECONDS, higher=False)


def measure_examples(demo: Path) -> None:
    """Example pairs that gain on the ground truth at the recommended strength, by the CLIP and by perceptual features."""
    table = measure_pairs(find_report(demo))
    print_figure("base.examples_with_truth_gain", count_gains(table, CLIP), TARGETS[CLIP])
    print_figure("base.examples_with_perceptual_gain", count_gains(table, PERCEPTUAL), TARGETS[PERCEPTUAL])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with canonical.npz, as embedded_base.pictures writes it")
    parser.add_argument("--demo", type=Path, required=True, help="store of a finished demo")
    arguments = parser.parse_args()
    measure_examples(arguments.demo)
    real, base = RealDrawings(arguments.work), load_base("embedded")
    sample = SampleConfig.model_validate(PRESETS["embedded"]["sample"])
    sampler, clip = Sampler(base, None, sample), ClipEncoder("embedded")
    time_drawing(base, sample)
    measure_clip(real, clip)
    measure_autoencoder(real)
    measure_contents(real, sampler, {"clip": (clip, 0.9), "efficientnet": (PerceptualEncoder(), 0.7)})
    measure_layouts(sampler, CONTENTS[::5])
    megabytes = sum(path.stat().st_size for path in WEIGHTS.rglob("*.safetensors")) / 1e6
    print_figure("base.megabytes", megabytes, MEGABYTES, higher=False)


if __name__ == "__main__":
    main()
