"""The laws of the report's pages: they show what there is, explain it, need nothing beside their folder, and trust no manifest."""

import re
import subprocess
import sys
from base64 import b64encode
from datetime import timedelta
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from staged_run import PROMPTS, STARTED, Staged, stage_run

from pairlora.measures import METRICS, SPILL
from pairlora.records import StepLoss
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


def read_pages(summary: ReportSummary) -> dict[str, str]:
    """All pages of a report by their path in its folder."""
    folder = Path(summary.report_url).parent
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.html"))}


def test_failed_and_invalid_rows_stand_on_the_page_with_their_reasons(built: ReportSummary):
    page = Path(built.report_url).read_text()
    failures = unescape(page[page.index('id="failures"') : page.index('id="overview"')])
    assert len(built.failed) == 3
    for outcome in built.failed:
        assert outcome.error_class in failures
        assert outcome.error_message in failures
    assert page.index('id="failures"') < page.index('id="overview"')


def test_there_is_a_card_a_row_and_a_page_a_pair(built: ReportSummary):
    pages = read_pages(built)
    assert set(pages) == {"index.html", "pairs/dog.html", "pairs/cat.html", "pairs/cow.html"}
    cards = [one for one in Page(pages["index.html"]).all("li") if "data-row" in one]
    assert [card["data-row"] for card in cards] == ["1", "2", "3", "4", "5"]
    assert [card["data-verdict"] for card in cards] == ["accept", "accept", "none", "none", "none"]
    assert [card["data-status"] for card in cards] == ["done", "done", "failed", "invalid", "failed"]
    assert cards[0]["data-group"] == "animals"
    assert float(cards[0]["data-direction"] or 0) == pytest.approx(0.5, abs=0.06)


def test_what_comes_from_a_manifest_is_never_markup(built: ReportSummary):
    pages = read_pages(built)
    for page in pages.values():
        assert page.count("<script") == 1
        assert "<b>nobody" not in page
        assert "pairs &amp; &lt;b&gt;.csv" in page
    assert "losses &lt;script&gt;x" in pages["index.html"]
    assert "&lt;script&gt;alert" in pages["pairs/dog.html"]


def test_hostile_prompts_and_templates_do_not_leave_their_attributes(empty: Staged):
    job = empty.add_job(1, "dog", prompts=('" onload="alert(1)', "{{ 7 * 7 }}", "\u202eright to left \U0001f98a"))
    empty.settle(job)
    empty.add_images(job)
    for name in ("index", "pairs/dog"):
        page = Page(empty.page(name))
        assert not [attributes for _, attributes in page.tags if "onload" in attributes]
        assert any('" onload="alert(1)' in (image["alt"] or "") for image in page.all("img"))
    assert any("{{ 7 * 7 }}" in (image["alt"] or "") for image in page.all("img"))
    assert any("\u202eright to left \U0001f98a" in (image["alt"] or "") for image in page.all("img"))


def test_a_page_runs_its_own_script_and_no_other(built: ReportSummary):
    for page in read_pages(built).values():
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
        assert policy is not None
        for kind, tag in (("script", "script"), ("style", "style")):
            source = page[page.index(f"<{tag}>") + len(tag) + 2 : page.index(f"</{tag}>")]
            digest = b64encode(sha256(source.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in unescape(policy[1])
        assert "default-src 'none'" in unescape(policy[1])
        assert not re.search(r"\sstyle=|\son[a-z]+=", page[page.index("<body>") : page.index("<script>")])


def test_the_report_needs_nothing_outside_its_folder(built: ReportSummary):
    folder = Path(built.report_url).parent
    for path, text in read_pages(built).items():
        page = Page(text)
        assert [link["href"] for link in page.all("link")] == ["data:,"]
        assert not [script for script in page.all("script") if "src" in script]
        sources = [image["src"] or "" for image in page.all("img") if "src" in image]
        assert all(source.startswith("data:image/") or (folder / path).parent.joinpath(source).is_file() for source in sources)
        assert not re.search(r"url\(|@import", text)
        assert not [href for anchor in page.all("a") if re.match(r"[a-z]+:|//", href := anchor["href"] or "")]
    assert len([image for image in Page(read_pages(built)["pairs/dog.html"]).all("img") if "src" in image]) == 14


def test_links_between_pages_lead_somewhere(built: ReportSummary):
    folder = Path(built.report_url).parent
    for path, text in read_pages(built).items():
        page = Page(text)
        anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
        for href in [anchor["href"] or "" for anchor in page.all("a")]:
            assert href[1:] in anchors if href.startswith("#") else (folder / path).parent.joinpath(href).is_file()
    assert [anchor["href"] for anchor in Page(read_pages(built)["pairs/cat.html"]).all("a") if anchor.get("rel")] == [
        "dog.html",
        "cow.html",
    ]


def test_a_page_says_how_its_adapter_is_had_as_a_file(built: ReportSummary):
    assert "pairlora export OUTPUT dog --to FOLDER" in (Path(built.report_url).parent / "pairs" / "dog.html").read_text()


def test_full_pictures_are_linked_by_paths_that_lead_to_their_files(built: ReportSummary):
    url = Path(built.report_url).parent / "pairs" / "dog.html"
    page = Page(url.read_text())
    full = [button["data-full"] or "" for button in page.all("button") if "data-full" in button]
    assert len(full) == 12
    assert all((url.parent / link).read_bytes().startswith(b"\x89PNG") for link in full)


def test_every_picture_has_words(built: ReportSummary):
    for text in read_pages(built).values():
        assert all(image.get("alt") for image in Page(text).all("img") if "src" in image)
    images = Page(read_pages(built)["pairs/dog.html"]).all("img")
    assert any(image["alt"] == "a fox, strength 1.25, seed 1" for image in images)


def test_a_verdict_stands_on_both_pages_with_its_reasons(staged: Staged):
    staged.run = staged.run.model_copy(update={"evaluate": staged.run.evaluate.model_copy(update={"accept_direction": 0.9})})
    reason = "little of the style arrives: direction"
    for name in ("index", "pairs/dog"):
        assert reason in staged.page(name)
        assert '<span class="status review">review</span>' in staged.page(name)


def test_cut_prompts_and_plain_lora_pictures_are_named(empty: Staged):
    job = empty.add_job(1, "dog")
    empty.settle(job)
    empty.add_images(job)
    empty.add_image(job, PROMPTS[0], 0, 0.0, lora_weight=0.8, is_cut=True)
    page = empty.page("pairs/dog")
    assert page.count("cut: longer than the base reads") == 1
    assert ">LoRA 0.8</th>" in page
    assert 'alt="a fox, plain LoRA 0.8, seed 0"' in page
    assert "1 of 2 prompts longer than the base reads" in empty.page()


def test_a_failed_pair_shows_its_tries_with_their_ends_and_logs(empty: Staged):
    job = empty.add_job(1, "dog")
    lost = empty.settle(job, "pending", trained=False)
    failed = {"status": "failed", "ended_at": STARTED + timedelta(minutes=61), "started_at": STARTED + timedelta(minutes=60)}
    error = {"error_class": "DivergedError", "error_message": "losses <i>stopped</i> being finite"}
    empty.write_shard("shard-0001-bb", [lost.model_copy(update=failed | error)], [])
    page = empty.page("pairs/dog")
    tries = unescape(page[page.index('id="tries"') :].partition("</section>")[0])
    first, second = re.findall(r"<li>(.*?)</li>", tries)
    assert "no end is known: its process was killed, or is at work still" in first
    assert "failed after 60 s: DivergedError: losses <i>stopped</i> being finite" in second
    folder = Path(empty.store.report_url(empty.run_id, "pairs/dog.html")).parent
    logs = [folder.joinpath(path).resolve() for path in re.findall(r'href="([^"]+\.log)"', tries)]
    assert [log.name for log in logs] == ["shard-0000-aa.1.log", "shard-0001-bb.1.log"]
    assert all("[dog]" in log.read_text() for log in logs)
    index = Page(empty.page())
    assert [anchor["href"] for anchor in index.all("a") if (anchor["href"] or "").endswith(".log")] == ["../logs/shard-0001-bb.1.log"]


def test_a_pair_that_was_done_at_once_does_not_speak_of_tries(built: ReportSummary):
    assert 'id="tries"' not in read_pages(built)["pairs/dog.html"]


def test_without_plain_lora_pictures_the_page_says_why_there_is_no_weight(built: ReportSummary):
    assert "unknown: no pictures of a plain LoRA were drawn" in read_pages(built)["pairs/dog.html"]


def test_the_page_explains_every_metric(built: ReportSummary):
    legend = unescape(Path(built.report_url).read_text().partition('id="legend"')[2])
    for metric in (*METRICS.values(), SPILL):
        assert metric.name in legend
        assert metric.meaning in legend
    assert "near 0 is better" in legend
    assert "perceptual@1" in legend


def test_building_twice_gives_the_same_bytes(staged: Staged):
    def read_all() -> dict[str, bytes]:
        summary = staged.build()
        return {str(path): path.read_bytes() for path in Path(summary.report_url).parent.rglob("*") if path.is_file()}

    assert read_all() == read_all()


def test_pictures_that_cannot_be_read_leave_a_gap_and_no_more(staged: Staged):
    before = Page(staged.page("pairs/dog"))
    image = staged.table("images").iloc[1]
    Path(image["url"]).write_bytes(b"damaged")
    Path(staged.jobs[0].pair.content).unlink()
    page = Page(staged.page("pairs/dog"))
    gaps = {span["aria-label"] for span in page.all("span") if "aria-label" in span}
    assert gaps == {"a fox, strength 1.25, seed 0: cannot be read", "content of dog: cannot be read"}
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
