"""The report of a run: tables that any reader opens, and one page for people; built from the store alone, any number of times."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import Field

from pairlora.config import RunConfig
from pairlora.records import Outcome, Record, RunRecord
from pairlora.report.collection import RunContents, collect_run
from pairlora.report.comparison import Comparison, compare_runs
from pairlora.report.contact_sheet import draw_contact_sheet
from pairlora.report.gallery import LISTED_CHANGES, list_files_beside, show_changes
from pairlora.report.page import Pages, count_statuses
from pairlora.report.ranking import RankedPair, describe_ranked, rank_worst
from pairlora.report.sections import PairSection, arrange_pair
from pairlora.report.tables import build_tables, encode_table
from pairlora.report.thumbnails import Thumbnail, read_drawn, read_thumbnails
from pairlora.report.verdicts import Finding, find_out
from pairlora.store.run_store import RunStore

__all__ = ["CONTACT_SHEET", "ReportSummary", "build_report"]

WRITE_THREADS = 16
CONTACT_SHEET = "contact-sheet.png"
"""The worst pairs in one picture, beside the first page."""


class ReportSummary(Record):
    """What a run came to, and where its report lies."""

    run_id: str
    report_url: str
    table_urls: dict[str, str]
    counts: dict[str, int]
    trained: int
    images_drawn: int
    images_reused: int
    recommended_strengths: dict[str, float | None]
    verdicts: dict[str, str]
    failed: tuple[Outcome, ...]
    worst: tuple[RankedPair, ...] = Field(default=(), description="the pairs that need a look most, worst first")
    became_worse: tuple[str, ...] = Field(default=(), description="pairs that are worse than in the previous run, the largest loss first")


def build_report(store: RunStore, record: RunRecord, *, credits: Sequence[str] = ()) -> ReportSummary:
    """Write tables and pages of a run from what the store holds of it; `credits` are lines for the pages' foot."""
    contents = collect_run(store, record)
    run = RunConfig.model_validate(record.config)
    thumbnails = read_thumbnails(store, contents, run.pictures)
    findings = [find_out(pair, run.evaluate) for pair in contents.pairs]
    tables = build_tables(store, contents, run, findings, thumbnails)
    table_urls = {name: store.write_report_file(record.run_id, f"{name}.parquet", encode_table(table)) for name, table in tables.items()}
    comparison = compare_runs(store, contents, findings, run.evaluate)
    changes = show_changes(comparison, thumbnails, read_earlier(store, comparison, run))
    sections = [arrange_pair(pair, finding, thumbnails, run) for pair, finding in zip(contents.pairs, findings, strict=True)]
    pages = Pages(contents, sections, run, comparison, changes, credits)
    worst = rank_worst(sections)
    beside = {**list_files_beside(sections, changes), CONTACT_SHEET: draw_contact_sheet(worst)}
    report_url = write_pages(store, pages, beside)
    return summarize_report(contents, findings, report_url, table_urls, worst, comparison)


def read_earlier(store: RunStore, comparison: Comparison | None, run: RunConfig) -> dict[str, Thumbnail]:
    """Thumbnails of the previous run's pictures that stand beside this one's, by image id."""
    changes = comparison.changes[:LISTED_CHANGES] if comparison else ()
    return read_drawn(store, [change.pictures[0].record for change in changes if change.pictures], run.pictures)


def write_pages(store: RunStore, pages: Pages, beside: Mapping[str, bytes]) -> str:
    """Write all files that pages refer to, then the pages of pairs, and last the first page, whose URL is returned."""
    run_id = pages.contents.run.run_id
    with ThreadPoolExecutor(WRITE_THREADS) as pool:
        for _ in pool.map(lambda file: store.write_report_file(run_id, *file), beside.items()):
            pass
        written = (pool.submit(store.write_report_file, run_id, path, page.encode()) for path, page in pages.render_pairs())
        for future in list(written):
            future.result()
    return store.write_report_file(run_id, "index.html", pages.render_index().encode())


def summarize_report(
    contents: RunContents,
    findings: Sequence[Finding],
    report_url: str,
    table_urls: dict[str, str],
    worst: Sequence[PairSection],
    comparison: Comparison | None,
) -> ReportSummary:
    """The report in a few numbers; `failed` names the invalid rows too."""
    outcomes = [pair.outcome for pair in contents.pairs]
    return ReportSummary(
        run_id=contents.run.run_id,
        report_url=report_url,
        table_urls=table_urls,
        counts=count_statuses(contents),
        trained=sum(outcome.trained for outcome in outcomes),
        images_drawn=sum(outcome.images_drawn for outcome in outcomes),
        images_reused=sum(outcome.images_reused for outcome in outcomes),
        recommended_strengths={
            pair.pair_id: finding.summary.recommended_strength
            for pair, finding in zip(contents.pairs, findings, strict=True)
            if pair.images
        },
        verdicts={
            pair.pair_id: verdict for pair, finding in zip(contents.pairs, findings, strict=True) if (verdict := finding.judgement.verdict)
        },
        failed=tuple(outcome for outcome in outcomes if outcome.status in ("failed", "invalid")),
        worst=tuple(map(describe_ranked, worst)),
        became_worse=tuple(change.after.pair_id for change in comparison.changes if change.kind == "worse") if comparison else (),
    )
