"""The caption grammar: what is drawn, where it lies, and in which look.

`a {set} icon of a cow face, {layout}, {effect}`. A caption that names its layout fixes it; a caption that
leaves it out goes with any layout, so that the seed decides. No caption names a held-out style; words for
styles to come are in the vocabulary all the same.
"""

from dataclasses import dataclass

from embedded_base.contents import name_content, with_article

SETS = {"fluent-emoji-flat": "flat", "noto": "rounded", "twemoji": "simple"}

EFFECTS = {
    "grayscale": "in grayscale",
    "pencil": "in pencil lines",
    "inverted": "with inverted colours",
    "pastel": "in pastel colours",
    "silhouette": "as a silhouette",
    "thick": "with a thick outline",
    "sepia": "in sepia",
    "spotlight": "lit by a spotlight",
    "relief": "in clay relief",
    "woodcut": "as a woodcut",
    "sunset": "in sunset light",
}

BACKGROUNDS = {
    "white": (255, 255, 255),
    "blue": (120, 170, 240),
    "green": (140, 205, 140),
    "yellow": (250, 225, 120),
    "red": (235, 120, 110),
    "gray": (185, 185, 190),
    "black": (25, 25, 30),
}

PLACES = {
    "centred": (0.0, 0.0),
    "on the left": (-1.0, 0.0),
    "on the right": (1.0, 0.0),
    "at the top": (0.0, -1.0),
    "at the bottom": (0.0, 1.0),
}

SPARE_WORDS = (
    "a photo of sbu sks drawing picture painting sketch style shaded shading soft smooth glossy shiny gradient 3d render plastic "
    "outline outlined ink line art black white high contrast bold monochrome digital watercolor oil charcoal chalk neon comic "
    "cartoon stencil paper cut out stitched glass metal wooden red green blue yellow orange purple pink brown dark light "
    "warm cold bright big small large tiny happy sad cute two three night day winter summer forest sea city"
).split()


@dataclass(frozen=True)
class Layout:
    """Where the drawing lies. `place` is a key of PLACES, `size` the share of the canvas, `background` a key of BACKGROUNDS."""

    place: str = "centred"
    small: bool = False
    background: str = "white"

    @property
    def words(self) -> str:
        size = "small and " if self.small else ""
        ground = "on white" if self.background == "white" else f"on a {self.background} background"
        return f"{size}{self.place} {ground}"


CANONICAL = Layout()


def write_caption(slug: str, drawn_by: str, layout: Layout | None = CANONICAL, effect: str | None = None) -> str:
    """The caption of one drawing; `layout=None` leaves the layout to the seed."""
    parts = [f"a {SETS[drawn_by]} icon of {with_article(name_content(slug))}"]
    if layout is not None:
        parts.append(layout.words)
    if effect is not None:
        parts.append(EFFECTS[effect])
    return ", ".join(parts)
