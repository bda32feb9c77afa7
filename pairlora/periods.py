"""Periods as people write them on a command line: '30m', '12h', '7d', '8w'."""

import re
from datetime import timedelta

from pairlora.errors import ConfigError

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_period(text: str, *, least: timedelta, most: timedelta, what: str, like: str) -> timedelta:
    """A period from `least` to `most`. ConfigError, which says `what` is asked for and what it is written `like`, for anything else."""
    match = re.fullmatch(r"(\d{1,5})([mhdw])", text.strip())
    period = timedelta(**{UNITS[match[2]]: int(match[1])}) if match else None
    if period is None or not least <= period <= most:
        raise ConfigError(f"'{text}' is no {what}; write it like {like}")
    return period
