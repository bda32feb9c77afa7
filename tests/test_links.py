"""A report as a link: who has it reads every page and picture for so long, and nothing else of the bucket."""

import re
import uuid
from datetime import timedelta
from html import unescape
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urldefrag, urlsplit
from urllib.request import urlopen

import fsspec
import pytest
from conftest import BUCKET, use_s3
from staged_run import Staged, stage_run
from typer.testing import CliRunner

from pairlora.cli.main import app
from pairlora.errors import ConfigError, UnsafeUrlError
from pairlora.report.links import parse_validity, share_report, sign_addresses
from pairlora.store.run_store import RunStore

SIGNED = re.compile(r'(?:href|src|data-full)="(http[^"]+)"')
RELATIVE = re.compile(r'\s(?:href|src|data-full)="[^"#:]+[#"]')
SCRIPT = re.compile(r"<script>.*?</script>", re.DOTALL)


def fetch(address: str) -> tuple[bytes, str]:
    """Bytes and content type, as a browser without credentials gets them."""
    with urlopen(address) as answer:
        return answer.read(), answer.headers["Content-Type"]


def visit_all(address: str) -> dict[str, tuple[bytes, str]]:
    """Everything that a page leads to, and the pages behind it, by address."""
    found: dict[str, tuple[bytes, str]] = {}
    left = [address]
    while left:
        if (one := urldefrag(left.pop()).url) in found:
            continue
        found[one] = fetch(one)
        if found[one][1].startswith("text/html"):
            left += map(unescape, SIGNED.findall(found[one][0].decode()))
    return found


@pytest.fixture
def shared(s3_server, monkeypatch, tmp_path: Path) -> tuple[Staged, RunStore]:
    """A run with its report, in the bucket."""
    use_s3(s3_server, monkeypatch)
    staged = stage_run(tmp_path)
    staged.build()
    root = f"{BUCKET}/{uuid.uuid4().hex}"
    fsspec.filesystem("s3").put(f"{staged.store.url}/", f"{root}/", recursive=True)
    return staged, RunStore(f"s3://{root}")


@pytest.mark.s3
def test_every_address_behind_the_link_answers_without_credentials(shared):
    staged, store = shared
    address = share_report(store, staged.run_id, timedelta(hours=1))
    visited = visit_all(address)
    pages = {urlsplit(one).path for one, (_, kind) in visited.items() if kind.startswith("text/html")}
    local = Path(staged.store.url) / "runs" / staged.run_id / "report"
    assert sorted(path.rpartition("/shared/")[2] for path in pages) == sorted(str(one.relative_to(local)) for one in local.rglob("*.html"))
    assert any(kind == "image/png" for _, kind in visited.values())
    for one, (data, _) in visited.items():
        if "/shared/" in urlsplit(one).path:
            original = (local / urlsplit(one).path.rpartition("/shared/")[2]).read_text()
            assert len(SIGNED.findall(data.decode())) == len(RELATIVE.findall(original))
            assert SCRIPT.findall(data.decode()) == SCRIPT.findall(original), "the page's policy names the digest of its scripts"


@pytest.mark.s3
def test_without_the_signature_there_is_no_answer_and_a_new_link_replaces_the_copies(shared):
    staged, store = shared
    first = share_report(store, staged.run_id, timedelta(minutes=1))
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in first
    assert "X-Amz-Expires=60" in first
    with pytest.raises(HTTPError, match="403"):
        fetch(first.partition("?")[0])
    keys = store.list_shown(staged.run_id)
    share_report(store, staged.run_id, timedelta(hours=1))
    assert store.list_shown(staged.run_id) == keys


@pytest.mark.s3
def test_the_command_builds_the_report_and_ends_with_the_link(shared):
    staged, store = shared
    done = CliRunner().invoke(app, ["report", "-o", store.url, "--run-id", staged.run_id, "--link", "30m"], catch_exceptions=False)
    address = done.output.strip().splitlines()[-1]
    assert (done.exit_code, "X-Amz-Expires=1800" in address) == (0, True)
    assert fetch(address)[1].startswith("text/html")


@pytest.mark.s3
def test_what_no_report_shows_is_not_signed(shared):
    staged, store = shared
    with pytest.raises(UnsafeUrlError, match="belongs to no report"):
        store.sign_shown(f"runs/{staged.run_id}/run.json", 60)


def test_a_folder_has_no_link(tmp_path: Path):
    staged = stage_run(tmp_path)
    staged.build()
    with pytest.raises(UnsafeUrlError, match="share the folder"):
        share_report(staged.store, staged.run_id, timedelta(hours=1))


def test_only_addresses_of_files_are_signed():
    kept = '<a href="#pairs"><img src="data:image/png;base64,AA"><a href="https://example.org/">&#34; href=&#34;no'
    page = f'{kept}<a href="../fox%20a.html#x&amp;y">'
    signed = sign_addresses(page, "runs/r/report/pairs", lambda key: f"https://bucket/{key}?a=1&b=2")
    assert signed == page.replace("../fox%20a.html", "https://bucket/runs/r/report/fox a.html?a=1&amp;b=2")


@pytest.mark.parametrize(("text", "validity"), [("30m", timedelta(minutes=30)), ("12h", timedelta(hours=12)), ("7d", timedelta(days=7))])
def test_a_link_is_good_for_a_week_at_most(text: str, validity: timedelta):
    assert parse_validity(text) == validity
    for wrong in ("8d", "0h", "12", "forever"):
        with pytest.raises(ConfigError, match="up to 7 days"):
            parse_validity(wrong)
