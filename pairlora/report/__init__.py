"""The report of a run: tables that any reader opens, and one page for people; built from the store alone, any number of times."""

from collections.abc import Sequence

from pairlora.config import RunConfig
from pairlora.records import Outcome, Record, RunRecord
from pairlora.report.collection import RunContents, collect_run
from pairlora.report.page import count_statuses, render_page
from pairlora.report.sections import arrange_pair
from pairlora.report.tables import build_tables, encode_table
from pairlora.report.thumbnails import read_thumbnails
from pairlora.report.verdicts import Finding, find_out
from pairlora.store import RunStore

__all__ = ["ReportSummary", "build_report"]


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


def build_report(store: RunStore, record: RunRecord, *, credits: Sequence[str] = ()) -> ReportSummary:
    """Write tables and page of a run from what the store holds of it; `credits` are lines for the page's foot."""
    run_id = record.run_id
    contents = collect_run(store, record)
    run = RunConfig.model_validate(record.config)
    thumbnails = read_thumbnails(store, contents, run.pictures)
    findings = [find_out(pair, run.evaluate) for pair in contents.pairs]
    tables = build_tables(store, contents, run, findings, thumbnails)
    sections = [arrange_pair(pair, finding.summary, thumbnails, run) for pair, finding in zip(contents.pairs, findings, strict=True)]
    page = render_page(contents, sections, run, credits)
    table_urls = {name: store.write_report_file(run_id, f"{name}.parquet", encode_table(table)) for name, table in tables.items()}
    report_url = store.write_report_file(run_id, "index.html", page.encode())
    return summarize_report(contents, findings, report_url, table_urls)


def summarize_report(contents: RunContents, findings: Sequence[Finding], report_url: str, table_urls: dict[str, str]) -> ReportSummary:
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
    )
