"""The report of a run: tables that any reader opens, and one page for people; built from the store alone, any number of times."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

from pydantic import Field

from pairlora.config import RunConfig
from pairlora.records import Outcome, Record, RunRecord
from pairlora.report.cards import Card, make_card
from pairlora.report.collection import PairContents, RunContents, collect_run
from pairlora.report.comparison import Comparer, Comparison
from pairlora.report.contact_sheet import draw_contact_sheet
from pairlora.report.gallery import count_statuses, list_files_beside, list_shown, show_changes
from pairlora.report.page import FirstPage, Pages, list_encoders
from pairlora.report.ranking import RankedPair, describe_ranked, rank_worst
from pairlora.report.sections import PairSection, arrange_pair
from pairlora.report.tables import Tables
from pairlora.report.thumbnails import read_thumbnails
from pairlora.report.verdicts import find_out
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
    """Write tables and pages of a run from what the store holds of it; `credits` are lines for the pages' foot.

    Pairs are read and let go a batch at a time, so that the memory of a large night is that of its cards.
    """
    contents = collect_run(store, record)
    run = RunConfig.model_validate(record.config)
    with Tables(store, contents, run) as tables, Assembly(store, contents, run, tables, credits) as assembly:
        for pairs in contents.read_batches():
            assembly.add(pairs)
        return assembly.finish()


class Assembly:
    """A report that grows with the pairs of a run; use as a context manager."""

    def __init__(self, store: RunStore, contents: RunContents, run: RunConfig, tables: Tables, credits: Sequence[str]):
        self._store = store
        self._run = run
        self._run_id = contents.run.run_id
        self._tables = tables
        self._pages = Pages(contents, run, credits)
        self._comparer = Comparer(store, contents, run.evaluate)
        self._cards: list[Card] = []
        self._failed: list[Outcome] = []
        self._worst: list[PairSection] = []
        self._encoders: dict[str, str] = {}
        self._beside: set[str] = set()
        self._threads = ThreadPoolExecutor(WRITE_THREADS)
        self._writing: list[Future[str]] = []

    def __enter__(self) -> "Assembly":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def add(self, pairs: Sequence[PairContents]) -> None:
        """Judge some pairs, write their rows, thumbnails and pages, and keep their cards."""
        thumbnails = read_thumbnails(self._store, pairs, self._run.pictures)
        findings = [find_out(pair, self._run.evaluate) for pair in pairs]
        self._tables.add(pairs, findings, thumbnails)
        self._comparer.add(pairs, findings)
        sections = [arrange_pair(pair, finding, thumbnails, self._run) for pair, finding in zip(pairs, findings, strict=True)]
        pages = ((f"pairs/{one.name}.html", self._pages.render_pair(one)) for one in sections if one.has_page)
        self._write_all(chain(self._take_new(list_files_beside(list_shown(sections))).items(), pages))
        self._cards += map(make_card, sections)
        self._failed += [pair.outcome for pair in pairs if pair.outcome.status in ("failed", "invalid")]
        self._worst = rank_worst([*self._worst, *sections])
        self._encoders = list_encoders(pairs, self._encoders)

    def finish(self) -> ReportSummary:
        """Write the tables, and last, when all else is there, the first page."""
        table_urls = {name: self._write(f"{name}.parquet", table) for name, table in self._tables.read()}
        comparison = self._comparer.finish()
        changes = show_changes(self._store, comparison, self._run)
        beside = self._take_new(list_files_beside(tile for change in changes for tile in (change.before, change.after)))
        self._write_all({**beside, CONTACT_SHEET: draw_contact_sheet(self._worst)}.items())
        self._await_writes()
        page = self._pages.render_index(FirstPage(self._cards, self._encoders, comparison, changes))
        report_url = self._write("index.html", page)
        return self._summarize(report_url, table_urls, comparison)

    def _take_new(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """The files that no earlier batch had; from now on they are known."""
        new = {name: data for name, data in files.items() if name not in self._beside}
        self._beside.update(new)
        return new

    def _write(self, path: str, data: bytes) -> str:
        return self._store.write_report_file(self._run_id, path, data)

    def _write_all(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Begin to write files side by side, once those before are written: a slow store works while the next pairs are read."""
        self._await_writes()
        self._writing = [self._threads.submit(self._write, *file) for file in files]

    def _await_writes(self) -> None:
        for future in self._writing:
            future.result()
        self._writing = []

    def _summarize(self, report_url: str, table_urls: dict[str, str], comparison: Comparison | None) -> ReportSummary:
        """The report in a few numbers; `failed` names the invalid rows too."""
        cards = self._cards
        return ReportSummary(
            run_id=self._run_id,
            report_url=report_url,
            table_urls=table_urls,
            counts=count_statuses(cards),
            trained=sum(card.trained for card in cards),
            images_drawn=sum(card.images_drawn for card in cards),
            images_reused=sum(card.images_reused for card in cards),
            recommended_strengths={card.pair_id: card.strength for card in cards if card.is_shown},
            verdicts={card.pair_id: card.verdict for card in cards if card.verdict},
            failed=tuple(self._failed),
            worst=tuple(map(describe_ranked, self._worst)),
            became_worse=tuple(change.pair_id for change in comparison.changes if change.kind == "worse") if comparison else (),
        )
