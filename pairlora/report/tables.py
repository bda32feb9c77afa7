"""The tables of a run as Parquet that any reader opens: fixed schemas, zstd, pictures as Hugging Face stores them."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from pairlora.config import RunConfig
from pairlora.records import Outcome
from pairlora.report.collection import PairContents, RunContents
from pairlora.report.summaries import Summary
from pairlora.report.thumbnails import Thumbnail, Thumbnails
from pairlora.report.verdicts import Finding
from pairlora.store.run_store import RunStore

SCHEMA_VERSION = 1
THUMBNAIL_ROWS = 100
"""Rows of a row group where a table holds pictures, so that a reader can page through them."""
GROUP_ROWS = 100_000
"""Rows of a row group of any other table."""

Row = dict[str, Any]

TEXT, TEXTS, TRUTH = pa.string(), pa.list_(pa.string()), pa.bool_()
INTEGER, NUMBER, TIME = pa.int64(), pa.float64(), pa.timestamp("us", tz="UTC")
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def make_schema(**columns: pa.DataType) -> pa.Schema:
    """A schema with the version and, for columns of pictures, the key by which Hugging Face readers know them."""
    metadata = {"schema_version": str(SCHEMA_VERSION)}
    if pictures := [name for name, kind in columns.items() if kind == PICTURE]:
        metadata["huggingface"] = json.dumps({"info": {"features": {name: {"_type": "Image"} for name in pictures}}})
    return pa.schema(list(columns.items()), metadata=metadata)


SCHEMAS: dict[str, pa.Schema] = {
    "pairs": make_schema(
        run_id=TEXT,
        rescored=TEXT,
        row=INTEGER,
        pair_id=TEXT,
        group=TEXT,
        status=TEXT,
        error_class=TEXT,
        error_message=TEXT,
        attempts=INTEGER,
        trained=TRUTH,
        adapter_url=TEXT,
        fingerprint=TEXT,
        base=TEXT,
        base_digest=TEXT,
        steps=INTEGER,
        learning_rate=NUMBER,
        content_loss=NUMBER,
        style_loss=NUMBER,
        recommended_strength=NUMBER,
        recommended_strength_share=NUMBER,
        recommended_strength_low=NUMBER,
        recommended_strength_high=NUMBER,
        recommended_weight=NUMBER,
        spill=NUMBER,
        verdict=TEXT,
        verdict_reasons=TEXTS,
        decision=TEXT,
        decided_strength=NUMBER,
        cut_prompts=TEXTS,
        licence=TEXT,
        consent=TEXT,
        started_at=TIME,
        device=TEXT,
        train_seconds=NUMBER,
        draw_seconds=NUMBER,
        score_seconds=NUMBER,
        peak_memory_bytes=INTEGER,
        images_drawn=INTEGER,
        images_reused=INTEGER,
        content_thumbnail=PICTURE,
        style_thumbnail=PICTURE,
    ),
    "attempts": make_schema(
        run_id=TEXT,
        row=INTEGER,
        pair_id=TEXT,
        fingerprint=TEXT,
        shard=TEXT,
        attempt=TEXT,
        started_at=TIME,
        ended_at=TIME,
        status=TEXT,
        error_class=TEXT,
        error_message=TEXT,
        device=TEXT,
        trained=TRUTH,
        images_drawn=INTEGER,
        images_reused=INTEGER,
        train_seconds=NUMBER,
        draw_seconds=NUMBER,
        score_seconds=NUMBER,
    ),
    "images": make_schema(
        run_id=TEXT,
        pair_id=TEXT,
        image_id=TEXT,
        prompt=TEXT,
        style_prompt=TEXT,
        seed=INTEGER,
        strength=NUMBER,
        lora_weight=NUMBER,
        is_cut=TRUTH,
        guidance_scale=NUMBER,
        profile=TEXT,
        url=TEXT,
        sha256=TEXT,
        thumbnail=PICTURE,
    ),
    "scores": make_schema(run_id=TEXT, pair_id=TEXT, image_id=TEXT, metric=TEXT, value=NUMBER, encoder=TEXT),
    "summaries": make_schema(
        run_id=TEXT,
        pair_id=TEXT,
        prompt=TEXT,
        strength=NUMBER,
        lora_weight=NUMBER,
        metric=TEXT,
        value=NUMBER,
        low=NUMBER,
        high=NUMBER,
        n=INTEGER,
    ),
    "losses": make_schema(
        run_id=TEXT,
        pair_id=TEXT,
        step=INTEGER,
        content_loss=NUMBER,
        style_loss=NUMBER,
        content_gradient_norm=NUMBER,
        style_gradient_norm=NUMBER,
    ),
    "reviews": make_schema(
        run_id=TEXT,
        pair_id=TEXT,
        fingerprint=TEXT,
        decided_in=TEXT,
        verdict=TEXT,
        strength=NUMBER,
        comment=TEXT,
        reviewer=TEXT,
        reviewed_at=TIME,
    ),
}
"""The columns of each table; a run without pairs has them all the same."""


class Table:
    """One table in a file that grows a row group at a time, so that the pictures of a large night are never in memory at once."""

    def __init__(self, path: Path, schema: pa.Schema):
        self._schema = schema
        self._writer = parquet.ParquetWriter(path, schema, compression="zstd")
        self._most = THUMBNAIL_ROWS if has_pictures(schema) else GROUP_ROWS
        self._rows: list[Row] = []
        self._batches: list[pa.RecordBatch] = []
        self._waiting = 0
        self._is_empty = True

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows; columns that they lack are null."""
        for row in rows:
            self._rows.append(row)
            if len(self._rows) == THUMBNAIL_ROWS:
                self._lay_out()

    def _lay_out(self) -> None:
        """Turn rows to columns, which weigh a tenth of them, and write those that make a row group."""
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
        self._waiting += len(self._rows)
        self._rows = []
        if self._waiting >= self._most:
            self._write()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._batches, schema=self._schema), row_group_size=self._most)
        self._batches, self._waiting, self._is_empty = [], 0, False

    def close(self) -> None:
        """Write what is left, and the file's foot; nothing where that is done."""
        if not self._writer.is_open:
            return
        if self._rows:
            self._lay_out()
        if self._waiting or self._is_empty:
            self._write()
        self._writer.close()


class Tables:
    """All tables of a run, which grow with its pairs; use as a context manager, and `read` them once all pairs are added."""

    def __init__(self, store: RunStore, contents: RunContents, run: RunConfig):
        self._store = store
        self._contents = contents
        self._run = run

    def __enter__(self) -> "Tables":
        self._folder = TemporaryDirectory(prefix="pairlora-tables-")
        self._tables = {name: Table(self._path(name), schema) for name, schema in SCHEMAS.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for table in self._tables.values():
            table.close()  # again, or for the first time where something failed
        self._folder.cleanup()

    def _path(self, name: str) -> Path:
        return Path(self._folder.name, f"{name}.parquet")

    def add(self, pairs: Sequence[PairContents], findings: Sequence[Finding], thumbnails: Thumbnails) -> None:
        """Add the rows of some pairs. `findings` are theirs, in their order."""
        run = self._contents.run
        rows: dict[str, Iterable[Row]] = {
            "pairs": (
                describe_pair(self._store, pair, self._run, finding, thumbnails) | {"rescored": run.rescored}
                for pair, finding in zip(pairs, findings, strict=True)
            ),
            "images": (row for pair in pairs for row in list_images(self._store, pair, thumbnails)),
            "scores": (row for pair in pairs for row in list_scores(pair)),
            "summaries": (describe_summary(one) for finding in findings for one in finding.summary.summaries),
            "losses": (row for pair in pairs for row in list_losses(pair)),
            "reviews": (review.model_dump() | {"decided_in": review.run_id} for pair in pairs for review in pair.reviews),
        }
        self._add_all(rows)

    def _add_all(self, rows: Mapping[str, Iterable[Row]]) -> None:
        run_id = {"run_id": self._contents.run.run_id}
        for name, found in rows.items():
            self._tables[name].add(row | run_id for row in found)

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Each table as a Parquet file, by name; equal contents give equal bytes. Nothing can be added afterwards."""
        self._add_all({"attempts": map(describe_attempt, self._contents.tries)})
        for name, table in self._tables.items():
            table.close()
            yield name, self._path(name).read_bytes()


def has_pictures(schema: pa.Schema) -> bool:
    """Whether a table has a column of pictures."""
    return any(field.type == PICTURE for field in schema)


def encode_table(table: pa.Table) -> bytes:
    """The table as a Parquet file; equal tables give equal bytes."""
    buffer = io.BytesIO()
    rows = THUMBNAIL_ROWS if has_pictures(table.schema) else None
    parquet.write_table(table, buffer, compression="zstd", row_group_size=rows)
    return buffer.getvalue()


def describe_pair(store: RunStore, pair: PairContents, run: RunConfig, finding: Finding, thumbnails: Thumbnails) -> Row:
    """The row of `pairs`: what became of a row of the manifest."""
    outcome = pair.outcome
    kept = ("pair_id", "row", "status", "attempts", "trained", "started_at", "device", "train_seconds", "draw_seconds", "score_seconds")
    row: Row = {name: getattr(outcome, name) for name in (*kept, "peak_memory_bytes", "images_drawn", "images_reused")}
    row |= {name: getattr(outcome, name) or None for name in ("fingerprint", "error_class", "error_message")}
    row |= {"base": run.base.name, "cut_prompts": pair.cut_prompts}
    if pair.decision:
        row |= {"decision": pair.decision.verdict, "decided_strength": pair.decision.strength}
    return row | describe_finding(finding) | describe_adapter(store, pair) | describe_job(pair, thumbnails)


def describe_summary(summary: Summary) -> Row:
    """The row of `summaries`: one mean."""
    return {name: getattr(summary, name) for name in Summary.__slots__}


def describe_attempt(outcome: Outcome) -> Row:
    """The row of `attempts`: one try at a pair. One whose process was killed is `pending` and has no end."""
    return {name: value for name, value in outcome.model_dump(exclude={"attempts", "peak_memory_bytes", "spill"}).items() if value != ""}


def describe_finding(finding: Finding) -> Row:
    """The columns of `pairs` that follow from the scores."""
    strength = finding.summary.strength
    return {
        "recommended_strength": strength.value,
        "recommended_strength_share": strength.share,
        "recommended_strength_low": strength.low,
        "recommended_strength_high": strength.high,
        "recommended_weight": finding.summary.weight.value,
        "spill": finding.summary.spill,
        "verdict": finding.judgement.verdict,
        "verdict_reasons": finding.judgement.reasons,
    }


def describe_adapter(store: RunStore, pair: PairContents) -> Row:
    """The columns of `pairs` that come from the training; none where there is no adapter."""
    adapter = pair.adapter
    if adapter is None:
        return {}
    row: Row = {"adapter_url": store.url_of(adapter.style_url), "base": adapter.base, "base_digest": adapter.base_digest}
    if adapter.losses:
        row |= {"content_loss": adapter.losses[-1].content_loss, "style_loss": adapter.losses[-1].style_loss}
    return row


def describe_job(pair: PairContents, thumbnails: Thumbnails) -> Row:
    """The columns of `pairs` that come from the manifest; none for rows that are invalid."""
    job = pair.job
    if job is None:
        return {}
    row: Row = {name: getattr(job.pair, name) for name in ("group", "licence", "consent")}
    row |= {name: job.train[name] for name in ("steps", "learning_rate")}
    if pair.adapter and pair.adapter.lowered_rate is not None:
        row["learning_rate"] = pair.adapter.lowered_rate
    for role, url in (("content", job.pair.content), ("style", job.pair.style)):
        row[f"{role}_thumbnail"] = store_picture(thumbnails.given.get(url), f"{job.pair.pair_id}-{role}")
    return row


def list_images(store: RunStore, pair: PairContents, thumbnails: Thumbnails) -> list[Row]:
    """The rows of `images`; an unstyled picture has one for each pair that shows it."""
    kept = ("image_id", "prompt", "style_prompt", "seed", "guidance_scale", "profile", "sha256")
    return [
        {name: getattr(image.record, name) for name in kept}
        | {
            "pair_id": pair.pair_id,
            "strength": image.strength,
            "lora_weight": image.lora_weight,
            "is_cut": image.is_cut,
            "url": store.url_of(image.record.url),
            "thumbnail": store_picture(thumbnails.drawn.get(image.record.image_id), image.record.image_id),
        }
        for image in pair.images
    ]


def list_scores(pair: PairContents) -> list[Row]:
    """The rows of `scores`; a metric that has no meaning for a picture is null."""
    scored = [(image, image.scores) for image in pair.images if image.scores is not None]
    return [
        {
            "pair_id": pair.pair_id,
            "image_id": image.record.image_id,
            "metric": metric,
            "value": value,
            "encoder": scores.encoders.get(metric, ""),
        }
        for image, scores in scored
        for metric, value in scores.scores.items()
    ]


def list_losses(pair: PairContents) -> list[Row]:
    """The rows of `losses`, one per step that was logged."""
    return [{"pair_id": pair.pair_id, **loss.model_dump()} for loss in pair.adapter.losses] if pair.adapter else []


def store_picture(thumbnail: Thumbnail | None, stem: str) -> Mapping[str, object] | None:
    """A picture as a cell of a table; null where there is none."""
    return None if thumbnail is None else {"bytes": thumbnail.data, "path": f"{stem}.{thumbnail.suffix}"}
