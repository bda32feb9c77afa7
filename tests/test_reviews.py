"""Decisions are taken down with name and time, never replaced, and stand in the next report; the web app trusts nobody but its own page."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from staged_run import RUN_ID, Staged, stage_night
from typer.testing import CliRunner

from pairlora.cli.main import app
from pairlora.errors import ConfigError, StoreError
from pairlora.records import AdapterRecord
from pairlora.review.app import make_app
from pairlora.review.decisions import ReviewDesk
from pairlora.store.run_store import RunStore


@pytest.fixture
def staged(tmp_path: Path) -> Staged:
    """A run with a report, to decide on."""
    run = stage_night(tmp_path)
    run.build()
    return run


@pytest.fixture
def desk(staged: Staged) -> ReviewDesk:
    return ReviewDesk(staged.store)


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


# Decisions


def test_every_decision_is_kept_and_the_newest_counts(staged: Staged, desk: ReviewDesk):
    desk.decide("dog", "accept", reviewer="anna", strength=2.0, comment="fine <b>lines</b>")
    desk.decide("dog", "reject", reviewer="ben")
    summary = staged.build()
    reviews = pd.read_parquet(summary.table_urls["reviews"])
    assert reviews["verdict"].tolist() == ["accept", "reject"]
    assert reviews["reviewer"].tolist() == ["anna", "ben"]
    assert reviews["strength"].tolist()[0] == 2.0
    assert str(reviews["reviewed_at"].dt.tz) == "UTC"
    assert set(reviews["run_id"]) == set(reviews["decided_in"]) == {RUN_ID}
    pairs = pd.read_parquet(summary.table_urls["pairs"]).set_index("pair_id")
    assert pairs["decision"].dropna().to_dict() == {"dog": "reject"}
    page = staged.page("pairs/dog")
    assert page.index("rejected by ben") < page.index("accepted by anna")
    assert "fine &lt;b&gt;lines&lt;/b&gt;" in page
    assert "rejected by ben" in staged.page()


def test_a_decision_holds_for_the_adapter_and_not_for_one_trained_anew(staged: Staged, desk: ReviewDesk):
    for pair_id in ("dog", "cat"):
        desk.decide(pair_id, "accept", reviewer="anna")
    tonight = stage_night(staged.folder, night=1, trained_anew={"dog": 0.0})
    pairs = tonight.table("pairs").set_index("pair_id")
    assert pairs["decision"].dropna().to_dict() == {"cat": "accept"}
    assert tonight.table("reviews")["decided_in"].tolist() == [RUN_ID]


def test_decisions_are_create_only_on_every_store(store: RunStore, desk: ReviewDesk):
    made = desk.decide("dog", "accept", reviewer="anna")
    assert store.add_review("adapter", "name", made)
    assert not store.add_review("adapter", "name", made.model_copy(update={"verdict": "reject"}))
    assert [review.verdict for review in store.read_reviews(["adapter"], type(made))] == ["accept"]
    assert store.read_reviews(["other"], type(made)) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"pair_id": "owl"}, "no pair 'owl'; its pairs are: dog, cat, cow"),
        ({"strength": 0.0}, "give a number above 0"),
        ({"strength": float("nan")}, "give a number above 0"),
        ({"comment": "x" * 4001}, "comment: "),
        ({"reviewer": " "}, "reviewer: "),
    ],
)
def test_a_decision_that_makes_no_sense_is_refused(desk: ReviewDesk, facts: dict, words: str):
    values: dict[str, Any] = {"pair_id": "dog", "verdict": "accept", "reviewer": "anna"} | facts
    with pytest.raises(ConfigError, match=re.escape(words)):
        desk.decide(**values)
    assert desk.read() == {}


def test_a_desk_needs_a_run(tmp_path: Path, staged: Staged):
    with pytest.raises(ConfigError, match="holds no run"):
        ReviewDesk(RunStore(str(tmp_path / "empty")))
    with pytest.raises(StoreError, match=f"no run 'other'; its runs are: {RUN_ID}"):
        ReviewDesk(staged.store, "other")


# The command line


def test_the_command_line_takes_decisions_down(staged: Staged):
    shown = call("review", "accept", "dog", "cat", "-o", staged.store.url, "--by", "anna", "--strength", "2.5", "-m", "good")
    assert shown.exit_code == 0
    assert "dog: accepted by anna" in shown.output
    shown = call("review", "reject", "cow", "-o", staged.store.url, "--by", "anna")
    assert shown.exit_code == 0
    decided = {pair_id: reviews[-1].verdict for pair_id, reviews in ReviewDesk(staged.store).read().items()}
    assert decided == {"dog": "accept", "cat": "accept", "cow": "reject"}


def test_one_unknown_pair_leaves_all_undecided(staged: Staged):
    shown = call("review", "accept", "dog", "owl", "-o", staged.store.url)
    assert shown.exit_code == 2
    assert "no pair 'owl'" in shown.output + shown.stderr
    assert ReviewDesk(staged.store).read() == {}


# The web app

URL = "http://127.0.0.1"


@pytest.fixture
def client(desk: ReviewDesk):
    with TestClient(make_app(desk, reviewer="anna", token="secret"), base_url=URL) as client:
        yield client


@pytest.fixture
def page_token(client: TestClient) -> str:
    """Comes in by the printed URL, and reads the token of the page."""
    page = client.get("/", params={"token": "secret"})
    found = re.search(r'<meta name="review-token" content="([^"]+)">', page.text)
    assert found is not None
    return found[1]


def test_the_page_is_the_report_with_a_token(client: TestClient, page_token: str, staged: Staged):
    page = client.get(f"/runs/{RUN_ID}/report/index.html")
    assert page.text.replace(page_token, "") == staged.page()
    pair = client.get(f"/runs/{RUN_ID}/report/pairs/dog.html")
    assert page_token in pair.text
    picture = re.search(r'data-full="([^"]+)"', pair.text)
    assert picture is not None
    found = client.get(str(pair.url.join(picture[1])))
    assert (found.status_code, found.headers["content-type"]) == (200, "image/png")


def test_a_decision_on_the_page_is_in_the_store_and_on_the_page_again(client: TestClient, page_token: str, desk: ReviewDesk):
    headers = {"X-Review-Token": page_token}
    body = {"pair_id": "dog", "verdict": "accept", "strength": 2.5, "comment": "שלום <i>"}
    answer = client.post("/reviews", json=body, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["words"].startswith("accepted by anna, ")
    assert answer.json()["words"].endswith("λ 2.5: שלום <i>")
    assert client.get("/reviews", headers=headers).json() == [answer.json()]
    (review,) = desk.read()["dog"]
    assert (review.verdict, review.strength, review.reviewer) == ("accept", 2.5, "anna")


@pytest.mark.parametrize("given", [{}, {"X-Review-Token": "guess"}, {"X-Review-Token": "secret"}])
def test_another_page_in_the_same_browser_decides_nothing(client: TestClient, page_token: str, desk: ReviewDesk, given: dict):
    assert page_token
    assert client.post("/reviews", json={"pair_id": "dog", "verdict": "accept"}, headers=given).status_code == 403
    assert desk.read() == {}


def test_without_the_token_of_the_url_nothing_is_shown(desk: ReviewDesk):
    with TestClient(make_app(desk, reviewer="anna", token="secret"), base_url=URL) as stranger:
        for path in ("/", "/?token=guess", f"/runs/{RUN_ID}/report/index.html", "/reviews"):
            assert stranger.get(path).status_code == 403


def test_another_name_for_this_machine_is_refused(desk: ReviewDesk):
    with TestClient(make_app(desk, reviewer="anna", token="secret"), base_url="http://evil.example") as stranger:
        assert stranger.get("/?token=secret").status_code == 400


def test_an_adapter_of_the_run_is_downloaded_as_the_file_that_stock_tools_load(client: TestClient, page_token: str, staged: Staged):
    record = staged.store.read_marker("adapter", staged.jobs[0].fingerprint, AdapterRecord)
    assert record is not None
    answer = client.get(f"/adapters/{record.fingerprint}/style.safetensors")
    assert hashlib.sha256(answer.content).hexdigest() == record.style_whole_sha256
    assert client.get(f"/adapters/{record.fingerprint}/other.safetensors").status_code == 422
    assert client.get(f"/adapters/{'0' * 64}/style.safetensors").status_code == 404
    client.cookies.clear()
    assert client.get(f"/adapters/{record.fingerprint}/style.safetensors").status_code == 403


@pytest.mark.parametrize("path", [f"runs/{RUN_ID}/run.json", "done/adapter", "reviews/x", "..%2f..%2fetc/passwd", "images/../runs"])
def test_only_reports_and_what_they_link_is_served(client: TestClient, page_token: str, path: str):
    assert page_token
    assert client.get(f"/{path}").status_code in (403, 404)


@pytest.mark.parametrize(
    "body",
    [
        {"pair_id": "owl", "verdict": "accept"},
        {"pair_id": "dog", "verdict": "maybe"},
        {"pair_id": "dog", "verdict": "accept", "strength": -1},
        {"pair_id": "dog", "verdict": "accept", "reviewer": "ben"},
    ],
)
def test_a_wrong_decision_is_refused(client: TestClient, page_token: str, desk: ReviewDesk, body: dict):
    assert client.post("/reviews", json=body, headers={"X-Review-Token": page_token}).status_code == 422
    assert desk.read() == {}
