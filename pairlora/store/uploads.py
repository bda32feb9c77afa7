"""Uploads in parts that were begun in a bucket of S3 and never ended: they are in no listing of objects, and are paid for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Call = Callable[..., dict[str, Any]]
"""Calls an operation of S3 by its name in lower case."""


@dataclass(frozen=True)
class Upload:
    """An upload that was not ended; `key` is that of the bucket, `size` the bytes of the parts that arrived."""

    bucket: str
    key: str
    upload_id: str
    begun_at: datetime
    size: int


def list_uploads(call: Call, bucket: str, prefix: str) -> Iterator[Upload]:
    """The uploads to keys that begin so, page by page. A server that does not page well may leave some out, for the next time."""
    place: dict[str, str] = {}
    found: set[str] = set()
    while True:
        page = call("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **place)
        new = [one for one in page.get("Uploads", []) if one["UploadId"] not in found]
        for one in new:
            named = {"Key": one["Key"], "UploadId": one["UploadId"]}
            yield Upload(bucket, one["Key"], one["UploadId"], one["Initiated"], measure_parts(call, bucket, named))
        if not page.get("IsTruncated") or not new:
            return
        found.update(one["UploadId"] for one in new)
        last = new[-1]  # some servers do not say where the next page begins
        place = {"KeyMarker": page.get("NextKeyMarker", last["Key"]), "UploadIdMarker": page.get("NextUploadIdMarker", last["UploadId"])}


def measure_parts(call: Call, bucket: str, named: dict[str, str]) -> int:
    """Bytes of the parts of an upload."""
    size, place = 0, {}
    while True:
        page = call("list_parts", Bucket=bucket, **named, **place)
        size += sum(part["Size"] for part in page.get("Parts", []))
        if not page.get("IsTruncated"):
            return size
        place = {"PartNumberMarker": page["NextPartNumberMarker"]}


def abort_upload(call: Call, upload: Upload) -> None:
    """Let go of an upload and its parts."""
    call("abort_multipart_upload", Bucket=upload.bucket, Key=upload.key, UploadId=upload.upload_id)
