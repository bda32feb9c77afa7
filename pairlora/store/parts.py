"""Parquet parts of a run: what each shard did, one row a record, from which the report is rebuilt."""

import io
from collections.abc import Sequence, Set
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pairlora.records import Record

SCHEMA_VERSION = 1
AnyRecord = TypeVar("AnyRecord", bound=Record)


def encode_records(records: Sequence[AnyRecord], kind: type[AnyRecord]) -> bytes:
    """Records as a Parquet file, zstd, in their order; nested values as JSON would have them."""
    columns = {name: [getattr(record, name) for record in records] for name in kind.model_fields}
    table = pa.table(columns).replace_schema_metadata({"schema_version": str(SCHEMA_VERSION), "record": kind.__name__})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def decode_records(data: bytes, kind: type[AnyRecord]) -> list[AnyRecord]:
    """The records of a part."""
    return [kind.model_validate(row) for row in decode_columns(data).to_pylist()]


def decode_columns(data: bytes) -> pa.Table:
    """The records of a part as the columns that it holds, which weigh a tenth of them."""
    return pq.ParquetFile(io.BytesIO(data)).read(use_threads=False)  # parts are small: threads would cost more than they spare


def drop_pairs(data: bytes, pair_ids: Set[str]) -> bytes:
    """A part without the records of some pairs; as it is where its records name none."""
    table = pq.read_table(io.BytesIO(data))
    if "pair_id" not in table.column_names:
        return data
    named = pc.is_in(table["pair_id"], value_set=pa.array(sorted(pair_ids), pa.string()))  # pyright: ignore[reportAttributeAccessIssue]
    buffer = io.BytesIO()
    pq.write_table(table.filter(pc.invert(named)), buffer, compression="zstd")  # pyright: ignore[reportAttributeAccessIssue]
    return buffer.getvalue()
