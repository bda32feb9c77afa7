"""The keys below a store's root, as far as no payload's digest decides them; a name that could lead elsewhere is refused."""

import re
from typing import Literal, get_args

from pairlora.errors import UnsafeUrlError

Kind = Literal["adapter", "image", "score", "baseline", "prefix", "pair", "inversion", "styled", "asset", "foreign"]
SEGMENT = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,199}")
SHOWN = re.compile(r"(runs/[^/]+/(report|logs)|adapters|images|baselines|styled)/")
IN_STORE = re.compile(r"(?P<root>.+)/adapters/(?P<fingerprint>[0-9a-f]{64})(/.*)?")
"""The URL of an adapter, as the report's tables have it."""
CATALOGUE = "catalogue-"
"""What the ids of runs over a catalogue begin with; all other runs train pairs."""


def checked_segment(segment: str) -> str:
    if SEGMENT.fullmatch(segment) and ".." not in segment and segment != ".":
        return segment
    raise UnsafeUrlError(f"{segment!r} cannot be a name in the store; use letters, digits, '-', '_' and '.', 200 at most, and no '..'")


def checked_key(key: str) -> str:
    return "/".join(checked_segment(segment) for segment in key.split("/"))


def checked_shown(key: str) -> str:
    """The key of a report's file, or of a payload that a report links; UnsafeUrlError for every other one."""
    if SHOWN.match(checked_key(key)):
        return key
    raise UnsafeUrlError(f"{key!r} belongs to no report")


def checked_kind(kind: str) -> str:
    if kind in get_args(Kind):
        return kind
    raise UnsafeUrlError(f"{kind!r} is no kind of marker; the kinds are {', '.join(get_args(Kind))}")


def marker_key(kind: str, key: str) -> str:
    return f"done/{checked_kind(kind)}/{checked_segment(key)[:2]}/{key}.json"


def checkpoint_folder(fingerprint: str) -> str:
    return f"checkpoints/{checked_segment(fingerprint)}"


def checkpoint_key(fingerprint: str) -> str:
    return f"{checkpoint_folder(fingerprint)}/latest.json"


def tombstone_key(sha256: str) -> str:
    return f"tombstones/{checked_segment(sha256)[:2]}/{sha256}.json"


def review_folder(fingerprint: str) -> str:
    return f"reviews/{checked_segment(fingerprint)[:2]}/{fingerprint}"


def run_folder(run_id: str) -> str:
    return f"runs/{checked_segment(run_id)}"


def run_key(run_id: str) -> str:
    return f"{run_folder(run_id)}/run.json"


def digests_key(name: str) -> str:
    return f"digests/{checked_segment(name)}.parquet"


def heartbeat_key(run_id: str, name: str) -> str:
    return f"{run_folder(run_id)}/portions/{checked_segment(name)}.json"


def log_path(name: str) -> str:
    """Where the log of a try lies in its run's folder, beside `report`."""
    return f"logs/{checked_segment(name)}.log"


def report_key(run_id: str, relative_path: str) -> str:
    return f"{run_folder(run_id)}/report/{checked_key(relative_path)}"
