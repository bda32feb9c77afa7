"""Drawings of the emoji sets as pictures: SVG from the npm packages, rendered, laid out, and put through simple effects."""

import io
import json
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image, ImageChops, ImageFilter, ImageOps

from embedded_base.captions import BACKGROUNDS, CANONICAL, PLACES, Layout

BASE_SETS = ("fluent-emoji-flat", "noto", "twemoji")
HELD_OUT_SETS = ("fluent-emoji", "fluent-emoji-high-contrast")
ALL_SETS = BASE_SETS + HELD_OUT_SETS
SIZE = 64
MARGIN = 4


class Drawings:
    """All drawings of the sets, rendered on demand as RGBA from `node_modules`."""

    def __init__(self, node_modules: Path):
        self._sets = {name: json.loads((node_modules / "@iconify-json" / name / "icons.json").read_text()) for name in ALL_SETS}

    def common_slugs(self) -> list[str]:
        """Slugs that every set draws; flags and keycaps are none of them."""
        return sorted(set.intersection(*(set(icons["icons"]) for icons in self._sets.values())))

    def render(self, drawn_by: str, slug: str, size: int = SIZE - 2 * MARGIN) -> Image.Image:
        """One drawing, RGBA, `size` pixels a side."""
        icons = self._sets[drawn_by]
        icon = icons["icons"][slug]
        left, top = icon.get("left", icons.get("left", 0)), icon.get("top", icons.get("top", 0))
        width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
        body = icon["body"].replace("currentColor", "#000000")
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height}" width="{size}" height="{size}">{body}</svg>'
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def lay_out(drawing: Image.Image, layout: Layout = CANONICAL, size: int = SIZE) -> Image.Image:
    """Paste an RGBA drawing on its background, RGB, `size` pixels a side."""
    margin = round(MARGIN * size / SIZE)
    inner = size - 2 * margin
    scale = 0.62 if layout.small or layout.place != "centred" else 1.0
    side = round(inner * scale)
    placed = drawing if drawing.size == (side, side) else drawing.resize((side, side), Image.Resampling.LANCZOS)
    horizontal, vertical = PLACES[layout.place]
    slack = (size - side) / 2 - margin / 2
    corner = (round((size - side) / 2 + horizontal * slack), round((size - side) / 2 + vertical * slack))
    canvas = Image.new("RGB", (size, size), BACKGROUNDS[layout.background])
    canvas.paste(placed, corner, placed)
    return canvas


def apply_effect(name: str, drawing: Image.Image) -> Image.Image:
    """An RGBA drawing in another look; the alpha channel keeps the outline of the drawing."""
    return EFFECT_FUNCTIONS[name](drawing)


def _recolour(drawing: Image.Image, colours: Image.Image) -> Image.Image:
    result = colours.convert("RGBA")
    result.putalpha(drawing.getchannel("A"))
    return result


def _on_white(drawing: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", drawing.size, (255, 255, 255))
    canvas.paste(drawing, (0, 0), drawing)
    return canvas


def _grayscale(drawing: Image.Image) -> Image.Image:
    return _recolour(drawing, ImageOps.grayscale(drawing.convert("RGB")).convert("RGB"))


def _pencil(drawing: Image.Image) -> Image.Image:
    gray = ImageOps.grayscale(_on_white(drawing))
    edges = ImageChops.subtract(gray.filter(ImageFilter.MaxFilter(3)), gray.filter(ImageFilter.MinFilter(3)))
    lines = ImageOps.invert(edges.point(lambda value: min(255, int(value * 2.2))))
    result = lines.convert("RGBA")
    result.putalpha(ImageChops.lighter(drawing.getchannel("A"), ImageOps.invert(lines)))
    return result


def _inverted(drawing: Image.Image) -> Image.Image:
    return _recolour(drawing, ImageOps.invert(drawing.convert("RGB")))


def _pastel(drawing: Image.Image) -> Image.Image:
    return _recolour(drawing, Image.blend(drawing.convert("RGB"), Image.new("RGB", drawing.size, (255, 250, 245)), 0.55))


def _silhouette(drawing: Image.Image) -> Image.Image:
    return _recolour(drawing, Image.new("RGB", drawing.size, (20, 20, 20)))


def _thick(drawing: Image.Image) -> Image.Image:
    grown = drawing.getchannel("A").filter(ImageFilter.MaxFilter(5))
    result = Image.new("RGBA", drawing.size, (0, 0, 0, 0))
    result.paste((10, 10, 10, 255), (0, 0), grown)
    result.alpha_composite(drawing.resize([side - 4 for side in drawing.size], Image.Resampling.LANCZOS), (2, 2))
    return result


def _sepia(drawing: Image.Image) -> Image.Image:
    gray = ImageOps.grayscale(drawing.convert("RGB"))
    return _recolour(drawing, ImageOps.colorize(gray, (45, 25, 10), (250, 235, 205)))


def _spotlight(drawing: Image.Image) -> Image.Image:
    width, height = drawing.size
    y, x = np.mgrid[0:height, 0:width]
    light = 1.25 - 0.9 * np.hypot(x / width - 0.35, y / height - 0.3)
    lit = np.clip(np.asarray(drawing.convert("RGB"), np.float32) * light[..., None], 0, 255)
    return _recolour(drawing, Image.fromarray(lit.astype(np.uint8)))


def _relief(drawing: Image.Image) -> Image.Image:
    """Lit from the top left, as if the outline and the edges between colours were rounded."""
    outline = np.asarray(drawing.getchannel("A").filter(ImageFilter.GaussianBlur(4)), np.float32)
    inner = np.asarray(ImageOps.grayscale(_on_white(drawing)).filter(ImageFilter.GaussianBlur(2)), np.float32)
    down, right = np.gradient((outline + 0.4 * inner) / 255)
    light = 1 + 2.2 * (down + right)
    lit = np.clip(np.asarray(drawing.convert("RGB"), np.float32) * light[..., None] + 90 * np.clip(light - 1.1, 0, None)[..., None], 0, 255)
    return _recolour(drawing, Image.fromarray(lit.astype(np.uint8)))


def _woodcut(drawing: Image.Image) -> Image.Image:
    """Black where the drawing is darker than its surroundings, white elsewhere."""
    gray = ImageOps.grayscale(_on_white(drawing))
    gap = 0.86 * np.asarray(gray.filter(ImageFilter.GaussianBlur(5)), np.float32) - np.asarray(gray, np.float32)
    inked = Image.fromarray(np.clip(128 - 12 * gap, 15, 250).astype(np.uint8))
    return _recolour(drawing, inked.convert("RGB"))


def _sunset(drawing: Image.Image) -> Image.Image:
    """Yellow light from above, violet from below."""
    share = np.linspace(0, 1, drawing.height, dtype=np.float32)[:, None, None]
    light = (1 - share) * np.array((255, 215, 120), np.float32) + share * np.array((110, 50, 190), np.float32)
    lit = 0.6 * np.asarray(drawing.convert("RGB"), np.float32) + 0.4 * light
    return _recolour(drawing, Image.fromarray(lit.astype(np.uint8)))


EFFECT_FUNCTIONS = {
    "grayscale": _grayscale,
    "pencil": _pencil,
    "inverted": _inverted,
    "pastel": _pastel,
    "silhouette": _silhouette,
    "thick": _thick,
    "sepia": _sepia,
    "spotlight": _spotlight,
    "relief": _relief,
    "woodcut": _woodcut,
    "sunset": _sunset,
}
