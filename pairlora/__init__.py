"""Learn a style from one pair of pictures and draw any prompt in it."""

__version__ = "0.1.0"
