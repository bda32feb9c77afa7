"""How the drivers of buckets are set up: with an end to every wait, and no listing that has grown old."""

from functools import cache
from typing import Any

TIMEOUT_SECONDS = 120.0
"""Every call of a bucket ends within this, the retries of its driver included; each megabyte that is written adds a second."""
ANSWERS_A_CALL = 4
"""An answer that does not come is asked for again after this part of the call's time."""
EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}
"""Protocols of object stores, and the extra of this package that brings the driver of each."""


def bucket_options(protocol: str, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
    """Options of a bucket's driver for reading: no listing that has grown old, and on S3 the timeouts of one answer."""
    config = {"connect_timeout": timeout / ANSWERS_A_CALL, "read_timeout": timeout / ANSWERS_A_CALL}
    return {"use_listings_cache": False} | ({"config_kwargs": config} if protocol == "s3" else {})


def open_s3_session(options: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Options of s3fs with timeouts, no cached listings, and a session whose requests carry no `Expect` header.

    Under aiohttp a put with that header hangs for ever where it is accepted and never answered; the read timeout is not applied.
    """
    from aiobotocore.session import AioSession  # optional: extra s3

    session = AioSession(profile=options.get("profile"))
    session.register_component("data_loader", _s3_loader())
    session.register("before-sign.s3", _drop_expect_header)
    ours = bucket_options("s3", timeout)
    signature = {"signature_version": "s3v4"}  # left to itself, the driver signs addresses of some regions in an older way
    config = {**ours["config_kwargs"], **signature, **options.get("config_kwargs", {})}
    return {**ours, "skip_instance_cache": True, "session": session, **options, "config_kwargs": config}


@cache
def _s3_loader() -> Any:
    """The driver's description of S3, parsed once: half a second that each store would cost anew."""
    from botocore.loaders import create_loader

    return create_loader()


def _drop_expect_header(request: Any, **_: Any) -> None:
    del request.headers["Expect"]
