"""The laws of the report's page: it shows what there is, explains it, needs no other file, and trusts no manifest."""

import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from staged_run import Staged, stage_run

from pairlora.measures import METRICS
from pairlora.records import (
    StepLoss,
)
from pairlora.report import ReportSummary
from pairlora.report.charts import StrengthPoint, draw_losses, draw_tradeoff, tick_decades, tick_evenly


@pytest.fixture
def empty(tmp_path: Path) -> Staged:
    """A run without pairs."""
    return Staged(tmp_path)


@pytest.fixture
def staged(tmp_path: Path) -> Staged:
    """A run to change."""
    return stage_run(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ReportSummary:
    """The report of a run that no test changes."""
    return stage_run(tmp_path_factory.mktemp("run")).build()


class Page(HTMLParser):
    """What a browser would load, and what it would show."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_failed_and_invalid_rows_stand_on_the_page_with_their_reasons(built: ReportSummary):
    page = Path(built.report_url).read_text()
    failures = unescape(page[page.index('id="failures"') : page.index('id="overview"')])
    assert len(built.failed) == 3
    for outcome in built.failed:
        assert outcome.error_class in failures
        assert outcome.error_message in failures
    assert page.index('id="failures"') < page.index('id="overview"')


def test_what_comes_from_a_manifest_is_never_markup(built: ReportSummary):
    page = Path(built.report_url).read_text()
    assert page.count("<script") == 1
    assert "<b>nobody" not in page
    assert "&lt;script&gt;alert" in page
    assert "losses &lt;script&gt;x" in page
    assert "pairs &amp; &lt;b&gt;.csv" in page


def test_hostile_prompts_and_templates_do_not_leave_their_attributes(empty: Staged):
    job = empty.add_job(1, "dog", prompts=('" onload="alert(1)', "{{ 7 * 7 }}"))
    empty.settle(job)
    empty.add_images(job)
    page = Page(empty.page())
    assert not [attributes for _, attributes in page.tags if "onload" in attributes]
    assert any('" onload="alert(1)' in (image["alt"] or "") for image in page.all("img"))
    assert any("{{ 7 * 7 }}" in (image["alt"] or "") for image in page.all("img"))


def test_the_page_needs_no_other_file(built: ReportSummary):
    page = Page(Path(built.report_url).read_text())
    assert not page.all("link")
    assert not [script for script in page.all("script") if "src" in script]
    sources = [image["src"] for image in page.all("img") if "src" in image]
    assert len(sources) > 24
    assert all(source and source.startswith("data:image/") for source in sources)
    assert not re.search(r"url\(|@import", Path(built.report_url).read_text())
    assert not [href for anchor in page.all("a") if re.match(r"[a-z]+:|//", href := anchor["href"] or "")]


def test_adapters_are_linked_by_paths_that_lead_to_their_files(built: ReportSummary):
    url = Path(built.report_url)
    links = [anchor["href"] or "" for anchor in Page(url.read_text()).all("a") if "download" in anchor]
    assert [(url.parent / link).read_bytes() for link in links] == [b"style", b"content"] * 2


def test_every_picture_has_words(built: ReportSummary):
    images = [image for image in Page(Path(built.report_url).read_text()).all("img") if "src" in image]
    assert all(image.get("alt") for image in images)
    assert any(image["alt"] == "a fox, strength 1.25, seed 1" for image in images)


def test_links_of_the_overview_lead_somewhere(built: ReportSummary):
    page = Page(Path(built.report_url).read_text())
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = {(anchor["href"] or "")[1:] for anchor in page.all("a") if (anchor["href"] or "").startswith("#")}
    assert {"pair-1", "pair-2", "legend"} <= targets <= anchors


def test_the_page_explains_every_metric(built: ReportSummary):
    legend = unescape(Path(built.report_url).read_text().partition('id="legend"')[2])
    for metric in METRICS.values():
        assert metric.name in legend
        assert metric.meaning in legend
    assert "near 0 is better" in legend
    assert "perceptual@1" in legend


def test_building_twice_gives_the_same_bytes(staged: Staged):
    def read_all() -> dict[str, bytes]:
        summary = staged.build()
        return {url: Path(url).read_bytes() for url in (summary.report_url, *summary.table_urls.values())}

    assert read_all() == read_all()


def test_pictures_that_cannot_be_read_leave_a_gap_and_no_more(staged: Staged):
    before = Page(staged.page())
    image = staged.table("images").iloc[1]
    Path(image["url"]).write_bytes(b"damaged")
    Path(staged.jobs[0].pair.content).unlink()
    Path(staged.jobs[1].pair.style).write_bytes(b"no picture")
    page = Page(staged.page())
    gaps = [span["aria-label"] for span in page.all("span") if "aria-label" in span]
    assert "a fox, strength 1.25, seed 0: cannot be read" in gaps
    assert {"content of dog: cannot be read", "style of cat: cannot be read"} <= set(gaps)
    assert len(page.all("img")) == len(before.all("img")) - len(gaps)
    pairs = staged.table("pairs").set_index("row")
    assert pairs.loc[1, "content_thumbnail"] is None
    assert pairs.loc[1, "style_thumbnail"] is not None


def test_credits_and_licences_stand_at_the_foot(built: ReportSummary):
    foot = Path(built.report_url).read_text().partition("<footer>")[2]
    assert "CC0-1.0" in foot
    assert "Drawn by &lt;b&gt;nobody" in foot


def test_the_report_is_built_without_torch():
    code = "import sys, pairlora.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Charts


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-0.3, 1, [0, 0.5, 1]), (1, 120, [50, 100]), (0, 7, [0, 2, 4, 6])],
)
def test_even_ticks_are_round(low: float, high: float, expected: list[float]):
    assert tick_evenly(low, high) == expected


@pytest.mark.parametrize(("low", "high", "expected"), [(0.015, 0.3, [0.02, 0.05, 0.1, 0.2]), (1e-4, 1, [1e-4, 1e-3, 1e-2, 1e-1, 1])])
def test_logarithmic_ticks_are_round(low: float, high: float, expected: list[float]):
    assert tick_decades(low, high) == pytest.approx(expected)


def test_the_tradeoff_fills_the_recommended_point_alone():
    points = [StrengthPoint(1.25, 0.4, 0.9), StrengthPoint(2.5, 0.7, 0.6)]
    chart = draw_tradeoff(points, 2.5, floor=0.3)
    assert chart.count("<circle") == 2
    assert chart.count("dot chosen") == 1
    centres = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart)
    assert float(centres[0][0]) < float(centres[1][0])
    assert float(centres[0][1]) < float(centres[1][1])


def test_losses_that_a_logarithm_cannot_show_are_left_out():
    def loss(step: int, content: float, style: float | None) -> StepLoss:
        return StepLoss(step=step, content_loss=content, style_loss=style, content_gradient_norm=1.0, style_gradient_norm=None)

    chart = draw_losses([loss(1, 0.5, None), loss(2, float("inf"), 0.0), loss(3, 0.25, 0.125)])
    assert [line.count(",") for line in re.findall(r'line content pale" points="([^"]*)"', chart)] == [2]
    assert [line.count(",") for line in re.findall(r'line style pale" points="([^"]*)"', chart)] == [1]
    assert draw_losses([]) == ""
    assert draw_losses([loss(1, float("nan"), None)]) == ""
