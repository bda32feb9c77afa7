"""Draw the sheets of samples of the model card: contents by looks, seed 0, nothing picked."""

import argparse
from pathlib import Path

from PIL import Image

from embedded_base.captions import write_caption
from embedded_base.contents import CONTENTS
from embedded_base.pictures import FLAT, LOOKS
from pairlora.bases import load_base
from pairlora.config import SampleConfig
from pairlora.presets import PRESETS
from pairlora.sampling.sampler import ImageRequest, Sampler

COLUMNS = 20
SHOWN_LOOKS = ("cow-face", "penguin", "red-apple", "automobile", "guitar")


def tile(pictures: list[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """Pictures of one size in rows of `columns`, on white."""
    width, height = (side + gap for side in pictures[0].size)
    sheet = Image.new("RGB", (columns * width + gap, -(-len(pictures) // columns) * height + gap), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (gap + index % columns * width, gap + index // columns * height))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="embedded", help="the shipped base or a folder of weights")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    arguments = parser.parse_args()
    sampler = Sampler(load_base(arguments.base), None, SampleConfig.model_validate(PRESETS["embedded"]["sample"]))
    flat = sampler.draw([ImageRequest(write_caption(slug, FLAT), seed=0) for slug in CONTENTS])
    looks = sampler.draw([ImageRequest(write_caption(slug, *look[:1], effect=look[1]), 0) for slug in SHOWN_LOOKS for look in LOOKS])
    arguments.out.mkdir(parents=True, exist_ok=True)
    tile(flat, COLUMNS).save(arguments.out / "embedded-contents.png", optimize=True)
    tile(looks, len(LOOKS)).save(arguments.out / "embedded-looks.png", optimize=True)


if __name__ == "__main__":
    main()
