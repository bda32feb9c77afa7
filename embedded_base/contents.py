"""The contents that the embedded base can draw by name, grouped as in the emoji standard."""

GROUPS: dict[str, tuple[str, ...]] = {
    "animals": tuple(
        "bear butterfly cat-face chicken cow-face crab dog-face elephant fish fox frog honeybee koala "
        "lady-beetle lion monkey-face mouse-face octopus owl panda penguin pig-face rabbit-face snail "
        "tiger-face tropical-fish turtle unicorn whale".split()
    ),
    "plants": ("cactus", "evergreen-tree", "rose", "sunflower", "tulip"),
    "food": tuple(
        "banana birthday-cake bread carrot cheese-wedge cherries cookie doughnut grapes hamburger "
        "hot-beverage ice-cream lemon mushroom pineapple pizza red-apple strawberry watermelon".split()
    ),
    "travel": tuple("airplane automobile bicycle bus cloud house locomotive rainbow rocket sailboat snowman sun tent".split()),
    "objects": tuple(
        "alarm-clock balloon basketball bell camera closed-book crown game-die guitar jack-o-lantern key "
        "light-bulb soccer-ball star teddy-bear top-hat trophy umbrella wrapped-gift".split()
    ),
}

CONTENTS: tuple[str, ...] = tuple(slug for group in GROUPS.values() for slug in group)


def name_content(slug: str) -> str:
    """The words for a slug in a caption: `jack-o-lantern` is read as "jack o lantern"."""
    return slug.replace("-", " ")


def with_article(name: str) -> str:
    """A name with its indefinite article; plurals that read as one thing ("grapes") keep the article out."""
    if name in {"grapes", "cherries"}:
        return name
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"
