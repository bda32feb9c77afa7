"""Manifests as streams of rows: CSV, Parquet and JSON lines, read without ever holding the whole file."""

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from pairlora.errors import ManifestError, UnsafeUrlError
from pairlora.records import Problem
from pairlora.store.urls import name_url, open_url

MAX_LINE = 1_000_000
"""Characters of one line; longer ones are a sign of a file that is no manifest."""

BATCH_ROWS = 64

Cells = dict[str, Any]


class Table(NamedTuple):
    """The columns of a manifest (None where each row names its own), and its rows one by one."""

    columns: tuple[str, ...] | None
    rows: "Iterator[Cells | Problem]"


def refuse(url: str, what: str, remedy: str) -> ManifestError:
    """The error of a manifest that is wrong as a whole."""
    return ManifestError(name_url(url), [Problem(row=0, field="manifest", what=what, remedy=remedy)])


@contextmanager
def open_manifest(url: str) -> Iterator[IO[bytes]]:
    """The bytes of a manifest; every way in which it cannot be read becomes a ManifestError."""
    try:
        with open_url(url) as file:
            yield file
    except UnsafeUrlError as error:
        raise refuse(url, *str(error).rsplit("; ", 1)) from error
    except FileNotFoundError as error:
        raise refuse(url, "there is no such file", "check the URL") from error
    except IsADirectoryError as error:
        raise refuse(url, "is a folder", "name the file in it") from error
    except PermissionError as error:
        raise refuse(url, "may not be read", "check the file's permissions and your credentials") from error
    except UnicodeDecodeError as error:
        raise refuse(url, f"is not UTF-8 text ({error.reason} at byte 0x{_first_byte(error):02x})", "save it as UTF-8") from error


@contextmanager
def open_table(url: str) -> Iterator[Table]:
    """The manifest as a table; the format is told by the suffix."""
    read = READERS.get(posixpath.splitext(url)[1].lower())
    if read is None:
        raise refuse(url, "has no suffix of a manifest", "name it .csv, .parquet, .jsonl or .ndjson, as its format is")
    with open_manifest(url) as file:
        yield read(url, file)


def parse_json(text: str) -> Any:
    """JSON as the standard has it: no NaN and no key twice; ValueError otherwise."""
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_read_object, parse_constant=_refuse_constant)


def _first_byte(error: UnicodeDecodeError) -> int:
    return error.object[error.start]


def _read_lines(url: str, file: IO[bytes]) -> Iterator[str]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        while line := text.readline(MAX_LINE):
            if len(line) == MAX_LINE:
                raise refuse(url, f"has a line of more than {MAX_LINE} characters", "check that it is a manifest")
            yield line


def _read_csv(url: str, file: IO[bytes]) -> Table:
    reader = csv.reader(_read_lines(url, file), strict=True)
    rows = _read_records(url, reader)
    header = next(rows, None)
    if header is None:
        raise refuse(url, "is empty", "give it a header and a row per pair")
    columns = tuple(name.strip() for name in header)
    return Table(columns, _name_cells(columns, rows))


def _read_records(url: str, reader: "Iterator[list[str]]") -> Iterator[list[str]]:
    """The header and the rows; blank lines are none."""
    row = 0
    try:
        for row, cells in enumerate(filter(None, reader), 1):  # noqa: B007 - the error below names the row
            yield cells
    except csv.Error as error:
        where = f"row {row}" if row else "the header"
        raise refuse(url, f"{where} is not CSV ({error})", "check that every quote in it is doubled and closed") from error


def _name_cells(columns: tuple[str, ...], rows: Iterator[list[str]]) -> Iterator[Cells | Problem]:
    for row, cells in enumerate(rows, 1):
        if len(cells) == len(columns):
            yield dict(zip(columns, cells, strict=True))
        else:
            what = f"has {len(cells)} cells, the header has {len(columns)}"
            yield Problem(row=row, field="line", what=what, remedy="quote every text that holds a comma or a quote")


def _read_jsonl(url: str, file: IO[bytes]) -> Table:
    lines = (line for line in _read_lines(url, file) if line.strip())
    return Table(None, (_read_line(row, line) for row, line in enumerate(lines, 1)))


def _read_line(row: int, line: str) -> Cells | Problem:
    remedy = "write one JSON object per line"
    try:
        cells = parse_json(line)
    except ValueError as error:
        return Problem(row=row, field="line", what=f"is not JSON ({error})", remedy=remedy)
    if not isinstance(cells, dict):
        return Problem(row=row, field="line", what="is JSON and not an object", remedy=remedy)
    return cells


def _read_parquet(url: str, file: IO[bytes]) -> Table:
    with _parquet_errors(url):
        # without these two, whole column chunks are held at once
        source = parquet.ParquetFile(file, buffer_size=65536, pre_buffer=False)
        return Table(tuple(source.schema_arrow.names), _read_batches(url, source))


def _read_batches(url: str, source: parquet.ParquetFile) -> Iterator[Cells]:
    converters = {field.name: _choose_converter(field.type) for field in source.schema_arrow}
    with _parquet_errors(url):
        for batch in source.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            for cells in batch.to_pylist():
                yield {name: value if value is None else converters[name](value) for name, value in cells.items()}


@contextmanager
def _parquet_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise refuse(url, f"cannot be read as Parquet ({str(error)[:200]})", "write the file again") from error


def _choose_converter(kind: pa.DataType) -> Callable[[Any], Any]:
    if pa.types.is_map(kind):
        return _read_map
    if pa.types.is_struct(kind):
        return _read_struct
    return _keep


def _read_map(value: list[tuple[Any, Any]]) -> Any:
    """A dict; left as a list where a key stands twice, so that the row's check refuses it."""
    found = dict(value)
    return found if len(found) == len(value) else value


def _read_struct(value: dict[str, Any]) -> dict[str, Any]:
    """A column of structs has every row's fields in each row: null means that this row has not got the field."""
    return {name: entry for name, entry in value.items() if entry is not None}


def _keep(value: Any) -> Any:
    return value


READERS: dict[str, Callable[[str, IO[bytes]], Table]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
}
