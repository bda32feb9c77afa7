"""Where commands write, and how the library's errors become messages and exit codes."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from pairlora.errors import PairloraError

out, err = Console(), Console(stderr=True)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn the library's errors into a message and an exit code; anything else is a bug and keeps its traceback."""
    try:
        yield
    except PairloraError as error:
        err.print(f"[red bold]{type(error).__name__}[/]", end=" ")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        err.print("interrupted; finished work is in the store, and the same command goes on from there")
        raise typer.Exit(130) from error
