"""The contents that the embedded base can draw by name, grouped as in the emoji standard."""

GROUPS: dict[str, tuple[str, ...]] = {
    "characters": tuple("alien clown-face ghost robot skull".split()),
    "animals": tuple(
        "bat bear bird blowfish bug butterfly camel cat-face chicken cow-face crab crocodile deer dog-face dolphin duck eagle "
        "elephant fish flamingo fox frog giraffe gorilla hatching-chick hedgehog hippopotamus honeybee horse-face jellyfish "
        "kangaroo koala lady-beetle lion llama lobster monkey-face mouse-face octopus owl panda parrot peacock penguin pig-face "
        "polar-bear rabbit-face raccoon ram rhinoceros rooster scorpion seal shark sloth snail snake spider spiral-shell "
        "squid swan tiger-face tropical-fish turtle unicorn whale wolf zebra".split()
    ),
    "plants": tuple(
        "cactus cherry-blossom deciduous-tree evergreen-tree four-leaf-clover maple-leaf palm-tree rose sunflower tulip".split()
    ),
    "food": tuple(
        "avocado banana beer-mug birthday-cake blueberries bread broccoli candy carrot cheese-wedge cherries coconut cookie "
        "cooking croissant cupcake doughnut ear-of-corn eggplant french-fries grapes hamburger hot-beverage hot-dog ice-cream "
        "kiwi-fruit lemon lollipop mango mushroom pancakes peach pear pineapple pizza popcorn pretzel red-apple strawberry taco tangerine "
        "teapot tomato watermelon wine-glass".split()
    ),
    "travel": tuple(
        "airplane ambulance anchor automobile bicycle bus castle cloud comet crescent-moon fire fire-engine fountain helicopter "
        "hot-springs house locomotive motor-scooter mountain rainbow ringed-planet rocket sailboat ship snowflake snowman sun "
        "taxi tent tornado tractor volcano".split()
    ),
    "activities": tuple(
        "artist-palette balloon baseball basketball bowling bullseye christmas-tree crystal-ball game-die jack-o-lantern kite "
        "pool-8-ball puzzle-piece soccer-ball tennis trophy video-game wrapped-gift yo-yo".split()
    ),
    "objects": tuple(
        "alarm-clock backpack bell bomb books camera candle closed-book coin crown desktop-computer drum gem-stone guitar hammer "
        "handbag key light-bulb locked lipstick magnet maracas microscope money-bag package pencil scissors shield star t-shirt "
        "teddy-bear telephone television top-hat trumpet umbrella violin watch wrench".split()
    ),
}

CONTENTS: tuple[str, ...] = tuple(slug for group in GROUPS.values() for slug in group)


def name_content(slug: str) -> str:
    """The words for a slug in a caption: `jack-o-lantern` is read as "jack o lantern"."""
    return slug.replace("-", " ")


WITHOUT_ARTICLE = frozenset(
    "blueberries books broccoli cherries cooking fire french-fries grapes hot-springs maracas pancakes popcorn scissors".split()
)


def with_article(name: str) -> str:
    """A name with its indefinite article; plurals and stuffs ("grapes", "broccoli") go without."""
    if name.replace(" ", "-") in WITHOUT_ARTICLE:
        return name
    return f"{'an' if name[0] in 'aeio' or name == 'umbrella' else 'a'} {name}"
