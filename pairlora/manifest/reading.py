"""Manifests: what a run shall do, one row per pair, read as a stream and refused once, completely, with the remedy."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

from pairlora.config import TrainConfig
from pairlora.errors import ManifestError
from pairlora.manifest.rows import BadRow, RowReader, suggest
from pairlora.manifest.tables import open_manifest, open_table, refuse
from pairlora.records import Pair, Problem
from pairlora.store.urls import name_url

__all__ = ["BadRow", "digest_manifest", "iterate_rows", "load_pairs"]

LISTED_PROBLEMS = 100
Read = TypeVar("Read")
Made = TypeVar("Made", covariant=True)


def iterate_rows(url: str, train: TrainConfig) -> Iterator[Pair | BadRow]:
    """The rows of a manifest one by one, as pairs or as what is wrong with them.

    `train` is the run's training configuration, on which each row's overrides must be valid. ManifestError where the
    manifest as a whole cannot be read, lacks a required column, has an unknown one, or has no rows.
    """
    yield from read_rows(url, lambda: RowReader(url, train))


class Reader(Protocol[Made]):
    """Turns the rows of a manifest of some kind into records."""

    @property
    def required(self) -> Sequence[str]: ...

    @property
    def columns(self) -> Sequence[str]: ...

    def read(self, row: int, cells: Mapping[str, Any]) -> "Made | BadRow":
        """The record of a row, or its problems."""
        ...


def read_rows(url: str, open_reader: Callable[[], Reader[Read]]) -> "Iterator[Read | BadRow]":
    """The rows of a manifest one by one, as its reader makes them; errors as of `iterate_rows`."""
    row = 0
    with open_table(url) as table:
        reader = open_reader()  # only now, since it takes the URL for a good one
        _check_columns(url, table.columns, reader)
        for row, cells in enumerate(table.rows, 1):
            yield BadRow(row=row, problems=(cells,)) if isinstance(cells, Problem) else reader.read(row, cells)
    if not row:
        raise refuse(url, "has no rows", "give it one row per pair or asset")


def load_pairs(url: str, train: TrainConfig, *, skip_bad_rows: bool) -> tuple[list[Pair], list[BadRow]]:
    """All pairs of a manifest, and its bad rows; unless they are to be skipped, these raise one ManifestError together."""
    return sort_rows(url, iterate_rows(url, train), skip_bad_rows=skip_bad_rows)


def sort_rows(url: str, rows: "Iterable[Read | BadRow]", *, skip_bad_rows: bool) -> "tuple[list[Read], list[BadRow]]":
    """The good rows and the bad ones; unless they are to be skipped, these raise one ManifestError together."""
    good: list[Read] = []
    bad_rows: list[BadRow] = []
    for row in rows:
        if isinstance(row, BadRow):
            bad_rows.append(row)
        else:
            good.append(row)
    if bad_rows and not skip_bad_rows:
        problems = (problem for bad_row in bad_rows for problem in bad_row.problems)
        count = sum(len(bad_row.problems) for bad_row in bad_rows)
        raise ManifestError(name_url(url), list(islice(problems, LISTED_PROBLEMS)), count)
    return good, bad_rows


def digest_manifest(url: str) -> str:
    """sha256 of the manifest's bytes, in hexadecimal."""
    with open_manifest(url) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]


def _check_columns(url: str, columns: tuple[str, ...] | None, reader: Reader[Any]) -> None:
    """Refuse missing, repeated and unknown columns, all of them at once."""
    if columns is None:
        return
    there = ", ".join(repr(name) for name in columns[:20])
    found = [(name, "is missing", f"add it; the manifest has {there}") for name in reader.required if name not in columns]
    for name, count in Counter(columns).items():
        if name not in reader.columns:
            found.append((name, "is not a column of a manifest", suggest(name, reader.columns)))
        if count > 1:
            found.append((name, f"stands in the header {count} times", "keep one of them"))
    if found:
        problems = [Problem(row=0, field=f"column {name!r}", what=what, remedy=remedy) for name, what, remedy in found]
        raise ManifestError(name_url(url), problems[:LISTED_PROBLEMS], len(problems))
