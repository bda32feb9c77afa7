"""A few pairs in one small picture for places that show no pages: the pair, a prompt unstyled, and the same in the style."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pairlora.report.sections import PairSection, Tile
from pairlora.report.thumbnails import Thumbnail

TILE, GAP, LABEL, COLUMNS = 72, 4, 16, 2
"""Pixels of a picture, between pictures and of the line above; with a palette ten pairs of noise weigh less than 300 KB."""
CELL = (4 * (TILE + GAP) + 2 * GAP, TILE + LABEL + 2 * GAP)
PAPER, INK, HAIR = "#fbfaf8", "#1f2023", "#e4e2dd"


def draw_contact_sheet(sections: Sequence[PairSection]) -> bytes:
    """A PNG with a cell a pair, two beside each other; of no pairs, an empty one."""
    rows = max(1, -(-len(sections) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * CELL[0], rows * CELL[1]), PAPER)
    for index, section in enumerate(sections):
        draw_cell(sheet, section, (index % COLUMNS * CELL[0] + GAP, index // COLUMNS * CELL[1] + GAP))
    buffer = io.BytesIO()
    sheet.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw_cell(sheet: Image.Image, section: PairSection, corner: tuple[int, int]) -> None:
    """The name and verdict of a pair, and its pictures beside each other."""
    left, top = corner
    words = f"{section.name[:34]}: {section.finding.judgement.verdict}"
    ImageDraw.Draw(sheet).text((left, top), words, INK, ImageFont.load_default(11))
    for index, tile in enumerate((section.content, section.style, section.unstyled, section.sample)):
        paste_tile(sheet, tile, (left + index * (TILE + GAP), top + LABEL))


def paste_tile(sheet: Image.Image, tile: Tile | None, corner: tuple[int, int]) -> None:
    """A picture within its square; the square is empty where there is no picture."""
    left, top = corner
    ImageDraw.Draw(sheet).rectangle((left, top, left + TILE - 1, top + TILE - 1), outline=HAIR)
    if tile is None or not isinstance(tile.thumbnail, Thumbnail):
        return
    with Image.open(io.BytesIO(tile.thumbnail.data)) as picture:
        shown = picture.convert("RGB")
    shown.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    sheet.paste(shown, (left + (TILE - shown.width) // 2, top + (TILE - shown.height) // 2))
