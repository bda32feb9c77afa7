"""What a file system says of a picture without reading it: enough to know whether it is the one that was read before."""

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from pairlora.store.drivers import TIMEOUT_SECONDS
from pairlora.store.failures import failing_as_store_error
from pairlora.store.urls import REMOTE_PROTOCOLS, connect, name_url, split_url

LISTED_PICTURES = 20
"""So many pictures of one folder of a bucket are looked up by one listing rather than one by one."""
SETTLED_SECONDS = 2.0
"""A file that changed so recently may change again without its times telling."""
THREADS = 16


def stamp_pictures(urls: Sequence[str]) -> dict[str, str]:
    """A stamp by URL: size with ETag in a bucket, with inode and both times of a local file. What has none is left out.

    A picture that was replaced has another stamp. Raises StoreError where a bucket fails.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    stamps = {}
    for url in urls:
        if split_url(url)[0] in REMOTE_PROTOCOLS:
            folders[url.rpartition("/")[0]].append(url)
        elif (stamp := _stamp_file(url)) is not None:
            stamps[url] = stamp
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(_stamp_folder, folders, folders.values()):
            stamps |= found
    return stamps


def _stamp_file(url: str) -> str | None:
    """Of a file that was not written just now; null for others, and where there is none."""
    protocol, path = split_url(url)
    if protocol not in ("", "file"):
        return None
    with suppress(OSError):
        facts = os.stat(path)
        if time.time() - max(facts.st_mtime, facts.st_ctime) > SETTLED_SECONDS:
            return f"{facts.st_size} {facts.st_ino} {facts.st_mtime_ns} {facts.st_ctime_ns}"
    return None


def _stamp_folder(folder: str, urls: Sequence[str]) -> dict[str, str]:
    """Of pictures of one folder of a bucket."""
    with failing_as_store_error("look at pictures in", name_url(folder)):
        paths = {url: connect(url)[1] for url in urls}
        filesystem = connect(urls[0])[0]
        if len(urls) >= LISTED_PICTURES:
            listed = _list_folder(filesystem, connect(folder + "/")[1])
            found = {url: listed.get(path.lstrip("/")) for url, path in paths.items()}
        else:
            found = {url: _look_at(filesystem, path) for url, path in paths.items()}
    return {url: stamp for url, facts in found.items() if facts and (stamp := _stamp_object(facts))}


def _list_folder(filesystem: Any, path: str) -> dict[str, Mapping[str, Any]]:
    try:
        listed = filesystem.ls(path.rstrip("/"), detail=True, timeout=TIMEOUT_SECONDS)
    except FileNotFoundError:
        return {}
    return {facts["name"].lstrip("/"): facts for facts in listed}


def _look_at(filesystem: Any, path: str) -> Mapping[str, Any] | None:
    try:
        return filesystem.info(path, timeout=TIMEOUT_SECONDS)
    except FileNotFoundError:
        return None


def _stamp_object(facts: Mapping[str, Any]) -> str | None:
    """Each driver has a name of its own for the tag that changes with an object."""
    tag = next((facts[name] for name in ("ETag", "etag", "generation") if facts.get(name)), None)
    return f"{facts['size']} {str(tag).strip(chr(34))}" if tag and facts.get("type") == "file" else None
