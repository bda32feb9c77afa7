"""URLs of untrusted manifests: which may be read, where relative ones begin, and how little of them is read.

The message of an `UnsafeUrlError` is always `what; remedy`, the remedy without a semicolon.
"""

import errno
import os
import posixpath
import re
from functools import lru_cache
from typing import IO, cast

import fsspec
from fsspec.core import url_to_fs

from pairlora.errors import (
    EmptyPictureError,
    MissingExtraError,
    MissingPictureError,
    PictureTooLargeError,
    UnsafeUrlError,
)
from pairlora.store.drivers import EXTRAS, TIMEOUT_SECONDS, bucket_options
from pairlora.store.failures import failing_as_store_error

REMOTE_PROTOCOLS = ("s3", "gs", "gcs", "az", "abfs")
"""The optional dependency that brings the file system of a protocol."""

ALLOWED = "use a path below the manifest, or a URL of s3, gs or az"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?(.*)", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def split_url(url: str) -> tuple[str, str]:
    """Protocol in lower case and the rest; a plain path has the protocol ''."""
    match = _SCHEME.fullmatch(url)
    if match is None:
        return "", url
    scheme, slashes, rest = match.groups()
    return (scheme.lower() if slashes else f"{scheme.lower()}:"), rest


def name_url(url: str) -> str:
    """The URL as messages may show it: one line, not too long, without credentials and query."""
    shown = re.sub(r"://[^/@]*:[^/@]*@", "://…@", _UNPRINTABLE.sub("�", url))
    if "://" in shown:
        shown = re.sub(r"\?.*", "?…", shown)
    return shown if len(shown) <= 200 else f"{shown[:100]}…{shown[-99:]}"


class Folder:
    """The folder of a manifest: its relative URLs begin here, and its local files must lie below."""

    def __init__(self, manifest: str):
        self.protocol, path = split_url(manifest)
        _check_text(manifest)
        if self.protocol in ("", "file"):
            self.protocol = "file"
            self.root = os.path.realpath(os.path.dirname(os.path.abspath(path)))
        elif self.protocol in (*REMOTE_PROTOCOLS, "memory"):
            self.root = posixpath.dirname(path)
        else:
            raise UnsafeUrlError(
                f"protocol {self.protocol.rstrip(':')} of {name_url(manifest)} is off; copy the manifest to a folder, s3, gs or az"
            )
        self._find_real_folder = lru_cache(maxsize=1024)(os.path.realpath)

    def resolve(self, url: str) -> str:
        """The absolute URL (a plain path for local files) of a URL that the manifest names; UnsafeUrlError where it may not."""
        _check_text(url)
        protocol, path = split_url(url)
        if protocol in ("", "file"):
            return self._resolve_path(url, protocol, path)
        if protocol in REMOTE_PROTOCOLS or protocol == self.protocol == "memory":
            return _check_remote(f"{protocol}://{path}")
        if protocol.endswith(":"):
            raise UnsafeUrlError(f"{name_url(url)} begins like a URL of protocol {protocol[:-1]}; write ./ before a file name with a colon")
        raise UnsafeUrlError(f"protocol {protocol} of {name_url(url)} is off; {ALLOWED}")

    def _resolve_path(self, url: str, protocol: str, path: str) -> str:
        if self.protocol == "file":
            if protocol and not path.startswith("/"):
                raise UnsafeUrlError(f"{name_url(url)} names a host or a relative path; write file:///folder/name, or the path alone")
            return self._resolve_local(url, path)
        if protocol or path.startswith("/"):
            raise UnsafeUrlError(
                f"{name_url(url)} is a local file and the manifest lies on {self.protocol}; upload the file and name its URL"
            )
        joined = posixpath.normpath(posixpath.join(self.root, path))
        below = posixpath.join(self.root, "") if self.root else ""
        if not joined.startswith(below) or joined.startswith("../") or joined == "..":
            raise _leaves(url)
        return f"{self.protocol}://{joined}"

    def _resolve_local(self, url: str, path: str) -> str:
        """The real path; only the folder's is cached, so that 100,000 rows cost one look at the disk each."""
        joined = os.path.join(self.root, path)
        folder, name = os.path.split(joined)
        real = os.path.join(self._find_real_folder(folder), name)
        if name in ("", ".", "..") or os.path.islink(real):
            real = os.path.realpath(joined)
        if not real.startswith(os.path.join(self.root, "")):
            raise _leaves(url)
        return real


def resolve_url(url: str, manifest: str) -> str:
    """The absolute URL of one URL that a manifest names; `Folder` does the same for many."""
    return Folder(manifest).resolve(url)


def _leaves(url: str) -> UnsafeUrlError:
    return UnsafeUrlError(f"{name_url(url)} leaves the manifest's folder; move the file below that folder, links resolved")


def _check_text(url: str) -> None:
    if _UNPRINTABLE.search(url):
        raise UnsafeUrlError(f"{name_url(url)!r} holds a control character; rename the file")
    if "::" in url:
        raise UnsafeUrlError(f"{name_url(url)} chains URLs with '::'; name one plain file")


def _check_remote(url: str) -> str:
    bucket, _, key = url.partition("://")[2].lstrip("/").partition("/")
    if not bucket or (not key and not url.startswith("memory:")):
        raise UnsafeUrlError(f"{name_url(url)} names no object of a bucket; write protocol://bucket/key")
    if ".." in key.split("/"):
        raise UnsafeUrlError(f"{name_url(url)} holds '..'; write the key in full")
    if "@" in bucket and (":" in bucket or not url.startswith(("az:", "abfs:"))):
        raise UnsafeUrlError(f"{name_url(url)} holds credentials; take them out and give them by the environment")
    return url


def connect(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, and the path on it; never a chain, since a local path may hold anything."""
    protocol, path = split_url(url)
    if protocol in ("", "file"):
        return fsspec.filesystem("file"), os.path.abspath(path)
    if protocol not in (*REMOTE_PROTOCOLS, "memory") or "::" in url:
        raise UnsafeUrlError(f"{name_url(url)} cannot be opened; {ALLOWED}")
    try:
        options = {} if protocol == "memory" else bucket_options(protocol)
        return cast("tuple[fsspec.AbstractFileSystem, str]", url_to_fs(url, **options))
    except ImportError as error:
        extra = EXTRAS.get(protocol, protocol)
        raise MissingExtraError(f"reading {protocol}:// needs an extra package; pip install 'pairlora[{extra}]'") from error


def open_url(url: str) -> IO[bytes]:
    """A binary file for streaming; OSError as the file system raises it."""
    with failing_as_store_error("open", name_url(url), quiet=(OSError,)):
        filesystem, path = connect(url)
        return cast("IO[bytes]", filesystem.open(path, "rb"))


def read_bytes(url: str, max_bytes: int) -> bytes:
    """The bytes of a picture's file. Its size is looked at first, and never more than `max_bytes + 1` are read.

    Raises MissingPictureError, EmptyPictureError or PictureTooLargeError, and StoreError where the file system fails.
    """
    name = name_url(url)
    try:
        with failing_as_store_error("read", name, quiet=(FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)):
            data = _read_within(url, max_bytes)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise MissingPictureError(f"{name}: there is no such file; check the URL in the manifest") from error
    except PermissionError as error:
        raise MissingPictureError(f"{name} may not be read; check the file's permissions and your credentials") from error
    if not data:
        raise EmptyPictureError(f"{name} has no bytes; export or copy it again")
    return data


def _read_within(url: str, max_bytes: int) -> bytes:
    filesystem, path = connect(url)
    remote = split_url(url)[0] in REMOTE_PROTOCOLS
    deadline = {"timeout": TIMEOUT_SECONDS} if remote else {}
    info = filesystem.info(path, **deadline)
    if info["type"] != "file":  # a folder, or a pipe that would be read for ever
        raise FileNotFoundError(errno.ENOENT, "not a plain file", path)
    size = info.get("size") or 0
    if size <= max_bytes:
        if remote:
            data = cast("bytes", filesystem.cat_file(path, start=0, end=max_bytes + 1, **deadline))
        else:
            with filesystem.open(path, "rb") as file:
                data = cast("bytes", file.read(max_bytes + 1))
        size = len(data)
        if size <= max_bytes:
            return data
    raise PictureTooLargeError(
        f"{name_url(url)} has more than the {max_bytes} bytes that are allowed; make it smaller, or raise pictures.max_bytes"
    )
