"""The report as people use it: filter, sort, open a pair, turn the strength, decide, load again; nothing leaves the machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chromium import Tab, open_tab
from staged_run import Staged, stage_night

from pairlora.records import Outcome
from pairlora.review.decisions import ReviewDesk

pytestmark = [pytest.mark.browser, pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium: apt-get install chromium")]

AXE = resources.files("axe_core_python").joinpath("axe.min.js").read_text() + "; undefined"
SHOWN = "[...document.querySelectorAll('#gallery > li')].filter(card => !card.hidden).map(card => card.dataset.name)"


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """Two nights; in the second one the dog became worse."""
    folder = tmp_path_factory.mktemp("run")
    stage_night(folder).build()
    tonight = stage_night(folder, night=1, trained_anew={"dog": -0.3})
    tonight.build()
    return tonight


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with open_tab(tmp_path) as tab:
        yield tab


def set_field(tab: Tab, name: str, value: str) -> None:
    """Fill in a field of the gallery's controls as a person does."""
    tab.run(
        f"""(() => {{ const field = document.getElementById("controls").elements["{name}"];
        field.type === "checkbox" ? field.checked = true : field.value = "{value}";
        field.dispatchEvent(new Event("input", {{bubbles: true}})); }})()"""
    )


def test_the_report_from_a_file_filters_sorts_and_turns_the_strength(staged: Staged, tab: Tab):
    tab.open(Path(staged.store.report_url(staged.run_id)).as_uri())
    assert tab.run(SHOWN) == ["dog", "cat", "cow"]
    set_field(tab, "text", "COW")
    assert tab.run(SHOWN) == ["cow"]
    set_field(tab, "text", "")
    set_field(tab, "sort", "direction")
    assert tab.run(SHOWN)[0] == "dog"
    set_field(tab, "descending", "on")
    assert tab.run(SHOWN)[-1] == "dog"
    set_field(tab, "low", "0.4")
    assert "dog" not in tab.run(SHOWN)
    tab.leave("document.querySelector('#gallery h3 a').click()")
    tab.wait("document.getElementById('viewer') && !document.getElementById('viewer').hidden && document.readyState === 'complete'")
    recommended = tab.run("document.getElementById('viewed-styled').alt")
    assert "strength 2.5" in recommended
    tab.run("document.getElementById('dial').focus()")
    tab.press("ArrowLeft")
    assert "strength 1.25" in tab.run("document.getElementById('viewed-styled').alt")
    assert tab.run("document.getElementById('viewed-label').textContent") == "λ 1.25"
    assert tab.run("[...document.images].filter(image => image.src).every(image => image.complete && image.naturalWidth > 0)")
    tab.leave("history.back()")
    tab.wait("document.getElementById('controls') && document.readyState === 'complete'")
    assert "dog" not in tab.run(SHOWN), "what was filtered is filtered still"
    assert tab.problems == []
    assert {urlsplit(url).scheme for url in tab.requests} <= {"file", "data"}


def test_a_count_of_the_first_screen_shows_its_pairs(staged: Staged, tab: Tab):
    tab.open(Path(staged.store.report_url(staged.run_id)).as_uri())
    set_field(tab, "text", "nothing like it")
    assert tab.run(SHOWN) == []
    for verdict in tab.run("[...document.querySelectorAll('a[data-filter^=verdict]')].map(link => link.dataset.filter.split('=')[1])"):
        tab.run(f"document.querySelector('a[data-filter=\"verdict={verdict}\"]').click()")
        shown = tab.run(SHOWN)
        assert shown
        number = f"parseInt(document.querySelector('a[data-filter=\"verdict={verdict}\"] b').textContent)"
        assert tab.run(number) == len(shown)
    assert tab.problems == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1300, 390])
def test_pages_can_be_read_by_everybody_and_on_a_phone(staged: Staged, tab: Tab, width: int, dark: bool):
    """The rules of axe, among them contrast, names of controls and alternative texts; and nothing is wider than the window."""
    tab.look(width=width, dark=dark)
    for name in ("index.html", "pairs/dog.html"):
        tab.open(Path(staged.store.report_url(staged.run_id, name)).as_uri())
        tab.run(AXE)
        faults = tab.run("axe.run(document).then(found => found.violations.flatMap(one => one.nodes.map(node => [one.id, node.html])))")
        assert faults == [], name
        assert tab.run("document.documentElement.scrollWidth") <= width


def test_text_of_strangers_is_shown_as_text(tmp_path: Path, tab: Tab):
    script, quotes, hebrew = "<script>hacked = 1</script>", "'\"><img src=x onerror='hacked = 2'>", "\u202eשלום \U0001f98a"
    run = Staged(tmp_path)
    run.run = run.run.model_copy(update={"manifest": str(tmp_path / "<img src=x onerror='hacked = 3'>.csv")})
    job = run.add_job(1, "dog", prompts=(script, quotes, hebrew))
    pair = job.pair.model_copy(update={"group": script, "licence": quotes, "style_template": f"{{prompt}} {hebrew}"})
    run.jobs[0] = job.model_copy(update={"pair": pair})
    run.settle(run.jobs[0], error_class=script, error_message=quotes)
    run.add_images(run.jobs[0])
    invalid = {"pair_id": script, "row": 2, "status": "invalid", "error_class": "ManifestError", "error_message": hebrew}
    run.unplanned = [Outcome.model_validate(invalid)]
    index = Path(run.build().report_url)
    tab.open(index.as_uri())
    shown = tab.run("document.body.textContent")
    assert all(text in shown for text in (script, quotes, hebrew, "<img src=x onerror='hacked = 3'>.csv"))
    set_field(tab, "text", "hacked")
    assert tab.run(SHOWN) == ["dog", script]
    tab.open((index.parent / "pairs" / "dog.html").as_uri())
    options = tab.run("[...document.getElementById('place').options].map(option => option.textContent)")
    assert options == [f"{prompt}, seed {seed}" for prompt in (script, quotes, hebrew) for seed in (0, 1)]
    assert tab.run("document.querySelector('tbody .prompt span').textContent") == script
    assert tab.run("[...document.querySelectorAll('.prompt span')].every(one => getComputedStyle(one).unicodeBidi === 'isolate')")
    assert tab.run("typeof hacked") == "undefined"
    assert tab.problems == []


def test_arrows_turn_pages(staged: Staged, tab: Tab):
    tab.open(Path(staged.store.report_url(staged.run_id, "pairs/dog.html")).as_uri())
    tab.press("ArrowRight")
    tab.wait("location.pathname.endsWith('/cat.html')")
    assert tab.problems == []


def test_a_decision_is_taken_down_and_there_again_after_loading(staged: Staged, tab: Tab):
    command = [sys.executable, "-c", "from pairlora.cli.main import app; app()", "review", "serve", staged.store.url, "--by", "anna"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"})
    try:
        assert process.stdout is not None
        tab.open(process.stdout.readline().strip())
        decided = "document.querySelector('[data-pair=\"cat\"] [data-decision]').textContent"
        tab.run(
            """(() => { const form = document.querySelector('#gallery [data-pair="cat"] form.decide');
            form.elements.strength.value = "2"; form.elements.comment.value = "<b>warm</b>";
            form.querySelector('button[value="accept"]').click(); })()"""
        )
        tab.wait(f"{decided}.includes('accepted by anna')")
        assert tab.run(decided).endswith("λ 2: <b>warm</b>")
        tab.run("window.isOld = true; location.reload()")
        tab.wait(f"!window.isOld && document.readyState === 'complete' && {decided}.includes('accepted by anna')")
        set_field(tab, "decision", "accept")
        assert tab.run(SHOWN) == ["cat"]
        tab.run("document.querySelector('[data-pair=\"cat\"] h3 a').click()")
        tab.wait("document.readyState === 'complete' && document.querySelector('.pair [data-decision]')?.textContent.includes('anna')")
        assert tab.problems == []
        assert {urlsplit(url).hostname for url in tab.requests if not url.startswith("data:")} == {"127.0.0.1"}
    finally:
        process.terminate()
        process.communicate()
    (review,) = ReviewDesk(staged.store).read()["cat"]
    assert (review.verdict, review.strength, review.comment) == ("accept", 2.0, "<b>warm</b>")
