"""A report as one link, for people without credentials of the bucket: copies of its pages in which every address is signed."""

import posixpath
import re
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from html import escape, unescape
from urllib.parse import unquote

from pairlora.errors import CorruptObjectError
from pairlora.periods import parse_period
from pairlora.store.run_store import RunStore, side_by_side

FOLDER = "shared"
"""Folder of the copies in that of the report, which forgetting and pruning empty with it."""
FIRST_PAGE = "/report/index.html"
ADDRESS = re.compile(r'(?P<head>\s(?:xlink:)?(?:href|src|data-full)=")(?P<path>[^"#?:]+)(?P<rest>(?:#[^"]*)?")')
"""An address in a page that leads to another file of the store: it names neither a protocol nor a place in the page itself."""
LONGEST = timedelta(days=7)
"""What S3 allows at most."""


def parse_validity(text: str) -> timedelta:
    """'30m', '12h' or '7d' as a time; ConfigError for anything else, and for more than a week."""
    return parse_period(text, least=timedelta(minutes=1), most=LONGEST, what="time of up to 7 days", like="30m, 12h or 7d")


def share_report(store: RunStore, run_id: str, validity: timedelta) -> str:
    """Write the copies of a report's pages and give the signed address of the first. Who knows it reads the report for so long.

    The report must have been built. The copies of an earlier link are replaced, so that its pages lead to the addresses of this one.
    """
    sign = cache(lambda key: store.sign_shown(key, int(validity.total_seconds())))
    shown = store.list_shown(run_id)
    index = next(key for key in shown if key.endswith(FIRST_PAGE))
    root = posixpath.dirname(index)
    paths = [posixpath.relpath(key, root) for key in shown if key.endswith(".html") and not key.startswith(f"{root}/{FOLDER}/")]
    copies = {f"{root}/{path}": f"{root}/{FOLDER}/{path}" for path in paths}
    address = sign(copies[index])

    def share_page(path: str) -> None:
        if (page := store.read_report_file(run_id, path)) is None:
            raise CorruptObjectError(f"{path} went from the report of {run_id} while it was shared; build the report again")
        folder = posixpath.dirname(f"{root}/{path}")
        shared = sign_addresses(page.decode(), folder, lambda key: sign(copies.get(key, key)))
        store.write_report_file(run_id, f"{FOLDER}/{path}", shared.encode())

    side_by_side(share_page, paths)
    return address


def sign_addresses(page: str, folder: str, sign: Callable[[str], str]) -> str:
    """A page of the store's `folder` with every address of a file in the store replaced by what `sign` makes of its key."""

    def replace(match: re.Match[str]) -> str:
        key = posixpath.normpath(posixpath.join(folder, unquote(unescape(match["path"]))))
        return f"{match['head']}{escape(sign(key))}{match['rest']}"

    return ADDRESS.sub(replace, page)
