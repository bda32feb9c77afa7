"""The report of a run over a catalogue: tables that any reader opens, and a page with the oddest assets first."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pyarrow as pa
from markupsafe import Markup

from pairlora.catalogue.collection import AssetContents, CatalogueContents, StyledImage, collect_catalogue
from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.identities import describe_way
from pairlora.catalogue.measures import CATALOGUE_METRICS
from pairlora.catalogue.naming import name_file
from pairlora.catalogue.outliers import Oddness, find_odd, sort_odd_first
from pairlora.errors import CorruptObjectError, PairloraError, StoreError
from pairlora.images import decode_layers, read_layers
from pairlora.records import RunRecord
from pairlora.report import WRITE_THREADS, ReportSummary
from pairlora.report.gallery import STATUS_ORDER
from pairlora.report.page import make_environment, read_template
from pairlora.report.tables import INTEGER, NUMBER, PICTURE, TEXT, TIME, Row, encode_table, make_schema, store_picture
from pairlora.report.thumbnails import Thumbnail, shrink
from pairlora.store.run_store import RunStore
from pairlora.store.urls import name_url

SHOWN_ASSETS = 200
"""Assets that the page shows with pictures: the oddest ones; the tables hold all."""

SCHEMAS: dict[str, pa.Schema] = {
    "assets": make_schema(
        run_id=TEXT,
        row=INTEGER,
        asset_id=TEXT,
        group=TEXT,
        licence=TEXT,
        status=TEXT,
        error_class=TEXT,
        error_message=TEXT,
        attempts=INTEGER,
        prompt=TEXT,
        image_url=TEXT,
        image_sha256=TEXT,
        mask_url=TEXT,
        width=INTEGER,
        height=INTEGER,
        reconstruction_psnr=NUMBER,
        autoencoder_psnr=NUMBER,
        oddness=NUMBER,
        oddness_reason=TEXT,
        images_drawn=INTEGER,
        images_reused=INTEGER,
        draw_seconds=NUMBER,
        score_seconds=NUMBER,
        started_at=TIME,
        device=TEXT,
        thumbnail=PICTURE,
    ),
    "styled": make_schema(
        run_id=TEXT,
        row=INTEGER,
        asset_id=TEXT,
        adapter=TEXT,
        fingerprint=TEXT,
        strength=NUMBER,
        guidance_scale=NUMBER,
        styled_id=TEXT,
        file_name=TEXT,
        url=TEXT,
        sha256=TEXT,
        bytes=INTEGER,
        width=INTEGER,
        height=INTEGER,
        prompt=TEXT,
        style_prompt=TEXT,
        profile=TEXT,
        thumbnail=PICTURE,
    ),
    "scores": make_schema(
        run_id=TEXT, row=INTEGER, asset_id=TEXT, adapter=TEXT, strength=NUMBER, styled_id=TEXT, metric=TEXT, value=NUMBER, encoder=TEXT
    ),
}
"""The columns of each table; a run without assets has them all the same."""


@dataclass(frozen=True)
class Pictures:
    """Thumbnails of the assets that are shown: of their own pictures by row, of styled ones by id."""

    given: Mapping[int, Thumbnail]
    styled: Mapping[str, Thumbnail]


def build_catalogue_report(store: RunStore, record: RunRecord, *, credits: Sequence[str] = ()) -> ReportSummary:
    """Write tables and page of a run from what the store holds of it; `credits` are lines for the page's foot."""
    contents = collect_catalogue(store, record)
    run = CatalogueConfig.model_validate(record.config)
    odd = find_odd(contents.assets)
    shown = sort_odd_first([asset for asset in contents.assets if asset.images], odd)[:SHOWN_ASSETS]
    pictures = read_pictures(store, shown, run)
    tables = build_tables(store, contents, odd, pictures)
    table_urls = {name: store.write_report_file(record.run_id, f"{name}.parquet", encode_table(table)) for name, table in tables.items()}
    beside = {f"thumbnails/{one.file_name}": one.data for one in (*pictures.given.values(), *pictures.styled.values())}
    with ThreadPoolExecutor(WRITE_THREADS) as pool:
        list(pool.map(lambda file: store.write_report_file(record.run_id, *file), beside.items()))
    page = render_page(contents, run, shown, odd, pictures, credits)
    return summarize(contents, store.write_report_file(record.run_id, "index.html", page.encode()), table_urls)


def summarize(contents: CatalogueContents, report_url: str, table_urls: dict[str, str]) -> ReportSummary:
    """The report in a few numbers; `failed` names the invalid rows too."""
    outcomes = [asset.outcome for asset in contents.assets]
    return ReportSummary(
        run_id=contents.run.run_id,
        report_url=report_url,
        table_urls=table_urls,
        counts=count_statuses(contents),
        trained=0,
        images_drawn=sum(outcome.images_drawn for outcome in outcomes),
        images_reused=sum(outcome.images_reused for outcome in outcomes),
        recommended_strengths={},
        verdicts={},
        failed=tuple(outcome for outcome in outcomes if outcome.status in ("failed", "invalid")),
    )


def count_statuses(contents: CatalogueContents) -> dict[str, int]:
    """How many assets came to each status."""
    found = Counter(asset.outcome.status for asset in contents.assets)
    return {status: found[status] for status in STATUS_ORDER if found[status]}


def read_pictures(store: RunStore, shown: Sequence[AssetContents], run: CatalogueConfig) -> Pictures:
    """Thumbnails on the background of the drawing; a picture that cannot be read has none."""

    def read_given(asset: AssetContents) -> Thumbnail | None:
        url = asset.job.asset.image if asset.job else ""
        return _shrink(lambda: read_layers(url, run.pictures)[0]) if url else None

    def read_styled(image: StyledImage) -> Thumbnail | None:
        record = image.record
        return _shrink(lambda: decode_layers(store.read_payload(record.url, record.sha256, record.bytes), run.pictures, name=record.url))

    def _shrink(read: Any) -> Thumbnail | None:
        try:
            return shrink(read().flatten(run.files.background))
        except PairloraError as error:
            if isinstance(error, StoreError) and not isinstance(error, CorruptObjectError):
                raise
            return None

    images = {image.record.styled_id: image for asset in shown for image in asset.images}
    with ThreadPoolExecutor(WRITE_THREADS) as pool:
        given = zip((asset.outcome.row for asset in shown), pool.map(read_given, shown), strict=True)
        styled = zip(images, pool.map(read_styled, images.values()), strict=True)
        return Pictures({row: one for row, one in given if one}, {styled_id: one for styled_id, one in styled if one})


# Tables


def build_tables(store: RunStore, contents: CatalogueContents, odd: Mapping[int, Oddness], pictures: Pictures) -> dict[str, pa.Table]:
    """All tables of a run, by name."""
    assets = contents.assets
    rows: dict[str, Iterator[Row]] = {
        "assets": (describe_asset(asset, odd.get(asset.outcome.row), pictures) for asset in assets),
        "styled": (describe_styled(store, image, pictures) for asset in assets for image in asset.images),
        "scores": (row for asset in assets for row in list_scores(asset)),
    }
    run_id = {"run_id": contents.run.run_id}
    return {name: pa.Table.from_pylist([row | run_id for row in rows[name]], schema=schema) for name, schema in SCHEMAS.items()}


def describe_asset(asset: AssetContents, odd: Oddness | None, pictures: Pictures) -> Row:
    """The row of `assets`: what became of a row of the catalogue."""
    outcome = asset.outcome
    kept = ("row", "status", "attempts", "images_drawn", "images_reused", "draw_seconds", "score_seconds", "started_at", "device")
    row: Row = {name: getattr(outcome, name) for name in kept} | {"asset_id": outcome.pair_id}
    row |= {name: getattr(outcome, name) or None for name in ("error_class", "error_message")}
    if odd:
        row |= {"oddness": odd.spreads, "oddness_reason": odd.words}
    if asset.job:
        given = asset.job.asset
        row |= {"group": given.group, "licence": given.licence, "prompt": given.prompt, "mask_url": given.mask or None}
        row |= {"image_url": given.image, "image_sha256": asset.job.image_sha256}
        row["thumbnail"] = store_picture(pictures.given.get(outcome.row), f"asset-{outcome.row}")
    if (first := asset.reconstruction) is not None:
        row |= {"width": first.record.width, "height": first.record.height}
        row |= {name: first.values.get(name) for name in ("reconstruction_psnr", "autoencoder_psnr")}
    return row


def describe_styled(store: RunStore, image: StyledImage, pictures: Pictures) -> Row:
    """The row of `styled`; the reconstruction has one an adapter, all with one picture."""
    record, reference = image.record, image.reference
    kept = ("guidance_scale", "styled_id", "sha256", "bytes", "width", "height", "prompt", "style_prompt", "profile")
    return (
        {name: getattr(record, name) for name in kept}
        | {name: getattr(reference, name) for name in ("row", "asset_id", "adapter", "fingerprint", "strength")}
        | {"url": store.url_of(record.url), "file_name": name_file(reference, record)}
        | {"thumbnail": store_picture(pictures.styled.get(record.styled_id), record.styled_id)}
    )


def list_scores(asset: AssetContents) -> Iterator[Row]:
    """The rows of `scores`; a metric that has no meaning for a picture is null."""
    for image in asset.images:
        told = {name: getattr(image.reference, name) for name in ("row", "asset_id", "adapter", "strength", "styled_id")}
        for metric, value in image.values.items():
            yield told | {"metric": metric, "value": value, "encoder": image.encoders.get(metric, "")}


# The page


def render_page(
    contents: CatalogueContents,
    run: CatalogueConfig,
    shown: Sequence[AssetContents],
    odd: Mapping[int, Oddness],
    pictures: Pictures,
    credits: Sequence[str],
) -> str:
    """The page as HTML: counts, failures, means by adapter and strength, and a card an asset, the oddest first."""
    outcomes = [asset.outcome for asset in contents.assets]
    jobs = [asset.job for asset in contents.assets if asset.job]
    return (
        make_environment()
        .get_template("catalogue.html.j2")
        .render(
            style=read_template("report.css") + read_template("catalogue.css"),
            script=Markup("").join(map(read_template, ("page.js", "catalogue.js"))),
            run=contents.run,
            manifest=name_url(contents.run.manifest).rsplit("/", 1)[-1],
            base=run.base.name,
            way=describe_way(run),
            counts=count_statuses(contents),
            images_drawn=sum(outcome.images_drawn for outcome in outcomes),
            images_reused=sum(outcome.images_reused for outcome in outcomes),
            device_seconds=sum(outcome.draw_seconds + outcome.score_seconds for outcome in outcomes),
            failures=[outcome for outcome in outcomes if outcome.status in ("failed", "invalid")],
            assets=shown,
            scored=sum(bool(asset.images) for asset in contents.assets),
            odd=odd,
            pictures=pictures,
            means=average(contents),
            files=[adapter for adapter in contents.adapters if adapter.file],
            metrics=CATALOGUE_METRICS,
            licences=sorted({job.asset.licence for job in jobs if job.asset.licence}),
            credits=credits,
        )
    )


def average(contents: CatalogueContents) -> dict[tuple[str, float], dict[str, float]]:
    """The mean of each metric over the catalogue, by adapter and strength."""
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for image in (image for asset in contents.assets for image in asset.images):
        columns = found.setdefault((image.reference.adapter, image.reference.strength), {})
        for metric, value in image.values.items():
            if value is not None:
                columns.setdefault(metric, []).append(value)
    return {key: {metric: fmean(values) for metric, values in columns.items()} for key, columns in sorted(found.items())}
