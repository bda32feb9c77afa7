"""Sheets of pictures, so that figures are not believed unseen: one an arm, unstyled, every strength and the ground truth in a row."""

import json
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import pandas as pd
from PIL import Image, ImageDraw

from pairlora.store.run_store import RunStore

CELL, GAP, HEAD = 96, 6, 20


def draw_sheet(pictures: pd.DataFrame, arm: str, root: str, truths: Mapping[tuple[str, str], str], path: Path) -> None:
    """Write the sheet of an arm: two prompts a pair, one of the subject's group and one of another; columns are settings, the truth last.

    `root` is the store's folder, `truths` the ground truth's file by (pair, prompt).
    """
    chosen = pictures[(pictures.arm == arm) & (pictures.seed == pictures.seed.min())]
    settings = sorted(set(chosen.setting))
    rows = [
        (pair_id, prompt, group.set_index("setting").url)
        for pair_id, pair in chosen.groupby("pair_id", sort=False)
        for prompt in _pick_prompts(pair)
        for group in [pair[pair.prompt == prompt]]
    ]
    half = (len(rows) + 1) // 2
    blocks = [rows[:half], rows[half:]]
    width = (len(settings) + 1) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (2 * width + 2 * GAP, HEAD + half * (CELL + GAP)), "white")
    for block, left in zip(blocks, (0, width + 2 * GAP), strict=True):
        _draw_block(sheet, block, left, settings, root, truths)
    sheet.save(path, optimize=True)


def _pick_prompts(pair: pd.DataFrame) -> Sequence[str]:
    """The first prompt of the subject's group and the first of another."""
    return [found.iloc[0] for related in (True, False) if len(found := pair[pair.related == related].prompt)]


def _draw_block(
    sheet: Image.Image, rows: Sequence[tuple[str, str, pd.Series]], left: int, settings: Sequence[float], root: str, truths: Mapping
) -> None:
    pen = ImageDraw.Draw(sheet)
    for column, head in enumerate([*(f"{setting:g}" for setting in settings), "truth"]):
        pen.text((left + GAP + column * (CELL + GAP), 4), head, fill="black")
    for index, (pair_id, prompt, urls) in enumerate(rows):
        shown = [read_picture(root, urls[setting]) for setting in settings] + [Image.open(truths[pair_id, prompt]).convert("RGB")]
        for column, picture in enumerate(shown):
            sized = picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(sized, (left + GAP + column * (CELL + GAP), HEAD + index * (CELL + GAP)))


def read_picture(root: str, url: str) -> Image.Image:
    """A picture of the store."""
    return Image.open(BytesIO(Path(RunStore(root).url_of(url)).read_bytes())).convert("RGB")


def read_truths(manifests: Iterable[Path]) -> dict[tuple[str, str], str]:
    """The ground truth's file by pair and prompt."""
    rows = [(manifest.parent, json.loads(line)) for manifest in manifests for line in manifest.read_text().splitlines()]
    return {(row["pair_id"], prompt): str(folder / name) for folder, row in rows for prompt, name in row["truth"].items()}
