"""Manifests to write and to read in tests."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from pyarrow import parquet

from pairlora.config import TrainConfig
from pairlora.errors import ManifestError
from pairlora.manifest.reading import BadRow, iterate_rows, load_pairs
from pairlora.records import Pair, Problem

TRAIN = TrainConfig()
ROW: dict[str, Any] = {
    "pair_id": "dog",
    "content": "plates/dog.png",
    "style": "plates/dog_ink.png",
    "content_prompt": "a photo of a dog",
    "style_template": "{prompt} in ink style",
}
FULL: dict[str, Any] = {
    **ROW,
    "content_prompt": "a photo of a {identifier} dog",
    "identifier": "sks",
    "test_prompts": ["a cat", 'a "red" car,\nparked'],
    "truth": {"a cat": "truth/cat.png"},
    "group": "ink",
    "licence": "CC0-1.0",
    "consent": "given, 2026",
    "overrides": {"steps": 500, "learning_rate": 0.001},
}


def write_csv(path: Path, rows: Iterable[dict[str, Any]], header: Iterable[str] | None = None) -> str:
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(header or dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: json.dumps(cell) if isinstance(cell, list | dict) else cell for name, cell in row.items()})
    return str(path)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def write_parquet(path: Path, rows: list[dict[str, Any]], **types: pa.DataType) -> str:
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        cells = [list(row[name].items()) if pa.types.is_map(kind) and row.get(name) else row.get(name) for row in rows]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(cells, kind))
    parquet.write_table(table, path)
    return str(path)


def read_problems(path: Path, **cells: Any) -> list[Problem]:
    """The problems of a good row with some cells exchanged, as JSON lines, where a cell can be anything."""
    (row,) = iterate_rows(write_jsonl(path / "manifest.jsonl", [{**ROW, **cells}]), TRAIN)
    return list(row.problems) if isinstance(row, BadRow) else []


def read_pair(path: Path, **cells: Any) -> Pair:
    (row,) = iterate_rows(write_jsonl(path / "manifest.jsonl", [{**ROW, **cells}]), TRAIN)
    assert isinstance(row, Pair), row
    return row


def list_problems(error: ManifestError) -> list[Problem]:
    return cast("list[Problem]", error.problems)


def fail_to_load(url: str, *, skip_bad_rows: bool = False) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        load_pairs(url, TRAIN, skip_bad_rows=skip_bad_rows)
    return caught.value
