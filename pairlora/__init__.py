"""Learn a style from one pair of pictures and draw any prompt in it.

The names below are what a script needs; they are loaded when they are first asked for, so that `import pairlora` stays light.
"""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pairlora.bases.loading import load_base
    from pairlora.errors import PairloraError
    from pairlora.styles import Style, draw, learn_style

__version__ = "0.1.0"
__all__ = ["PairloraError", "Style", "__version__", "draw", "learn_style", "load_base"]

_PLACES = {
    "PairloraError": "pairlora.errors",
    "Style": "pairlora.styles",
    "draw": "pairlora.styles",
    "learn_style": "pairlora.styles",
    "load_base": "pairlora.bases.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"pairlora has no {name!r}; its names are {', '.join(__all__)}")
    return resolve_name(f"{_PLACES[name]}:{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
