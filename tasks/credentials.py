"""Credentials of the store from a Prefect secret block, into the environment where drivers and worker processes find them."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prefect.blocks.system import Secret

from pairlora.errors import ConfigError

ALLOWED = ("AWS_", "AZURE_", "GOOGLE_", "GCS_")
"""A block sets what drivers of stores read, and nothing else of a process."""


@contextmanager
def credentials_loaded(block: str | None) -> Iterator[None]:
    """The variables of a secret block for the duration of a run; without a block the environment is as it is.

    ConfigError where there is no such block or where it is no map of such variables; its value is in no message.
    """
    before = dict(os.environ)
    try:
        if block is not None:
            os.environ.update(check_variables(block, read_block(block)))
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def read_block(name: str) -> Any:
    """The value of a secret block."""
    try:
        value = Secret.load(name).get()  # pyright: ignore[reportAttributeAccessIssue]  a coroutine only where it is called from one
    except ValueError as error:
        raise ConfigError(f"output.secret_block = '{name}': Prefect has no such secret block; create it, or use the environment") from error
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None


def check_variables(block: str, values: Any) -> Mapping[str, str]:
    """The variables, where all are such that drivers read them."""
    if not isinstance(values, Mapping) or not all(isinstance(value, str) for value in values.values()):
        raise ConfigError(f"the secret block '{block}' is no JSON map of variables to texts; write it as {{\"AWS_ACCESS_KEY_ID\": …}}")
    if wrong := [str(name) for name in values if not str(name).startswith(ALLOWED)]:
        allowed = ", ".join(f"{start}*" for start in ALLOWED)
        raise ConfigError(f"the secret block '{block}' sets {', '.join(wrong)}; only {allowed} may be set")
    return values
