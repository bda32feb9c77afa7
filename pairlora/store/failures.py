"""What file systems and drivers of buckets raise, told apart and turned into the library's errors."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pairlora.errors import NoSpaceError, StoreError

DRIVERS = {"aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs"}
"""Packages whose exceptions mean that the target failed. They share no root, and need not be installed."""
FULL = {errno.ENOSPC, errno.EDQUOT}
INSUFFICIENT_STORAGE = 507
"""What S3 servers of one's own answer when their disks are full."""


@contextmanager
def failing_as_store_error(action: str, where: str, secrets: Sequence[str] = (), quiet: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what file systems and drivers raise into StoreError, without the secrets; our own errors and `quiet` ones pass on."""
    try:
        yield
    except quiet:
        raise
    except Exception as error:  # the exceptions of drivers share no root and cannot be imported here; others pass on
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in DRIVERS:
            raise
        silent = "no answer in time" if isinstance(error, TimeoutError) else "no reason given"
        reason = (str(error).strip() or silent).splitlines()[0][:300]
        clean = reason
        for secret in secrets:
            clean = clean.replace(secret, "***")
        told = f"cannot {action} {where}: {type(error).__name__}: {clean}"
        # a cause would bring the secret back into a traceback
        cause = error if clean == reason else None
        if is_full(error):
            raise NoSpaceError(f"{told}; free some space (`pairlora prune` does), and the same command goes on") from cause
        raise StoreError(told) from cause


def is_full(error: BaseException | None) -> bool:
    """Whether an error means that there is no space left, on a disk or behind a bucket."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in FULL) or INSUFFICIENT_STORAGE in _statuses(error):
            return True
        error = error.__cause__
    return False


def is_refusal(error: BaseException | None) -> bool:
    """Whether a create-only write failed because the object is there, or being made by another at this moment."""
    while error is not None:
        if isinstance(error, FileExistsError):
            return True
        if {409, 412} & _statuses(error):
            return True
        error = error.__cause__
    return False


def _statuses(error: BaseException) -> set[int]:
    """The HTTP status behind an error of a driver; each driver keeps it at a place of its own."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    found = (metadata.get("HTTPStatusCode"), getattr(error, "code", None), getattr(error, "status_code", None))
    return {status for status in found if isinstance(status, int)}
