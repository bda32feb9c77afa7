"""The pictures that the models learn from, rendered once and kept as arrays.

`canonical.npz`: every set for every common content, centred on white. `captioned.npz`: the known contents in the
base looks with captions, canonical and augmented.
"""

import argparse
import random
from pathlib import Path

import numpy as np

from embedded_base.captions import BACKGROUNDS, CANONICAL, EFFECTS, PLACES, Layout, write_caption
from embedded_base.contents import CONTENTS
from embedded_base.drawings import ALL_SETS, BASE_SETS, Drawings, apply_effect, lay_out

FLAT = BASE_SETS[0]
LOOKS: tuple[tuple[str, str | None], ...] = tuple((name, None) for name in BASE_SETS) + tuple((FLAT, effect) for effect in EFFECTS)
HELD_OUT_SHARE = 0.1
AUGMENTED_PER_CONTENT = 40


def split_contents(slugs: list[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """Contents that the autoencoder and the CLIP train on, and those kept out of both (never a known content)."""
    others = [slug for slug in slugs if slug not in CONTENTS]
    held_out = set(random.Random(seed).sample(others, round(HELD_OUT_SHARE * len(slugs))))
    return [slug for slug in slugs if slug not in held_out], sorted(held_out)


def render_canonical(drawings: Drawings) -> dict[str, np.ndarray]:
    """`pictures` (sets, contents, 64, 64, 3) uint8 with `slugs` and `sets`."""
    slugs = drawings.common_slugs()
    rows = [[np.asarray(lay_out(drawings.render(name, slug))) for slug in slugs] for name in ALL_SETS]
    return {"pictures": np.array(rows), "slugs": np.array(slugs), "sets": np.array(ALL_SETS)}


def draw_layout(rng: random.Random) -> Layout:
    """A layout that differs from the canonical one in at least one word."""
    while True:
        layout = Layout(rng.choice(list(PLACES)), rng.random() < 0.3, rng.choice(list(BACKGROUNDS)))
        if layout != CANONICAL:
            return layout


def render_captioned(drawings: Drawings, seed: int = 0) -> dict[str, np.ndarray]:
    """`pictures` (n, 64, 64, 3) uint8 with `captions`; the first rows are canonical, one per content and look."""
    rng = random.Random(seed)
    pictures, captions, canonical = [], [], []

    def add(slug: str, look: tuple[str, str | None], layout: Layout, named: bool) -> None:
        drawing = drawings.render(look[0], slug)
        if look[1] is not None:
            drawing = apply_effect(look[1], drawing)
        pictures.append(np.asarray(lay_out(drawing, layout)))
        captions.append(write_caption(slug, look[0], layout if named else None, look[1]))
        canonical.append(layout == CANONICAL)

    for slug in CONTENTS:
        for look in LOOKS:
            add(slug, look, CANONICAL, named=True)
    for slug in CONTENTS:
        for _ in range(AUGMENTED_PER_CONTENT):
            look = LOOKS[0] if rng.random() < 0.5 else rng.choice(LOOKS)
            add(slug, look, draw_layout(rng), named=rng.random() < 0.6)
    return {"pictures": np.array(pictures), "captions": np.array(captions), "canonical": np.array(canonical)}


def flip(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror a random half of (n, height, width, 3) pictures."""
    mirrored = rng.random(len(pictures)) < 0.5
    return np.where(mirrored[:, None, None, None], pictures[:, :, ::-1], pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--node-modules", type=Path, required=True, help="folder with the npm packages @iconify-json/*")
    parser.add_argument("--work", type=Path, required=True, help="folder for arrays and checkpoints")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    drawings = Drawings(arguments.node_modules)
    np.savez(arguments.work / "canonical.npz", **render_canonical(drawings))
    np.savez(arguments.work / "captioned.npz", **render_captioned(drawings))


if __name__ == "__main__":
    main()
