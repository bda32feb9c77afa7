"""Objects by key below one root URL: whole writes, create-only writes, and one kind of error on every target.

The owner of fsspec. It knows no key of its own but `.tmp`; what lies where is the store's matter.
"""

import errno
import hashlib
import mimetypes
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from pairlora.errors import MissingExtraError, StoreError, UnsafeUrlError
from pairlora.store.drivers import EXTRAS, TIMEOUT_SECONDS, open_s3_session
from pairlora.store.facts import ObjectFacts, read_change
from pairlora.store.failures import failing_as_store_error, is_refusal
from pairlora.store.uploads import Upload, abort_upload, list_uploads

STALE_CLAIM_SECONDS = 30
"""After this a local writer that claimed a key and wrote nothing is taken for dead."""

LARGEST_PUT = 5 * 2**30
"""Bytes that one request may bring to S3. All payloads are smaller, so none is sent in parts, of which a kill would leave some behind."""

PUBLIC_OPTIONS = {"endpoint_url", "region_name", "profile"}
"""Options of drivers that may stand in an error's message; every other string of the options is blotted out of it."""
SECRET_VARIABLES = re.compile(r"(AWS|AZURE|GOOGLE|GCS|FSSPEC)_.*(SECRET|TOKEN|PASSWORD|CONNECTION_STRING|(?<!ACCESS_)KEY)(?!_FILE).*")
"""Variables of the environment whose values are credentials; AWS_ACCESS_KEY_ID is a name, which an error may show."""
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def open_objects(url: str, options: dict[str, Any], timeout: float = TIMEOUT_SECONDS) -> "LocalObjects | RemoteObjects":
    """The objects below `url`, which is not touched. `options` go to the fsspec driver; `timeout` is the seconds of a bucket's call.

    Raises UnsafeUrlError, or MissingExtraError where the driver of the protocol is not installed.
    """
    protocol = _checked_protocol(url)
    if protocol != "file":
        return RemoteObjects(url.rstrip("/") if url != "memory://" else url, protocol, options, timeout)
    path = url.partition("://")[2] if "://" in url else url
    return LocalObjects(Path(os.path.abspath(os.path.expanduser(path))))


def _checked_protocol(url: str) -> str:
    """The protocol of a root URL, 'file' for a plain path. Raises UnsafeUrlError, with nothing secret in its message."""
    protocol, separator, path = url.partition("://")
    if not separator:
        protocol, path = "file", url
    if protocol == "local":
        protocol = "file"
    if "::" in url:
        raise UnsafeUrlError("a store cannot lie at a chained URL ('::'); name the folder or bucket itself")
    if protocol not in {"file", "memory", *EXTRAS}:
        raise UnsafeUrlError(f"a store cannot lie at {protocol}://; use a folder, or s3://, gs:// or az://")
    if not path.strip("/") and protocol != "memory" and path != "/":
        raise UnsafeUrlError(f"{url!r} names no folder or bucket")
    if protocol in EXTRAS and (re.match(r"[^/]*:[^/]*@", path) or "?" in path or "#" in path or ".." in path.split("/")):
        raise UnsafeUrlError(
            f"a {protocol}:// URL of a store holds no credentials, '?', '#' or '..'; credentials come from the environment"
        )
    return protocol


class LocalObjects:
    """Objects as files below a folder. Unfinished ones lie in `.tmp`, so that no listing and no reader sees them."""

    def __init__(self, root: Path):
        self.root = root
        self.url = str(root)

    def _failing(self, action: str, key: str):
        return failing_as_store_error(action, f"{self.url}/{key}")

    def read(self, key: str) -> bytes | None:
        with self._failing("read", key):
            try:
                return (self.root / key).read_bytes()
            except FileNotFoundError:
                return None

    def exists(self, key: str) -> bool:
        return (self.root / key).is_file()

    def measure(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        try:
            return (self.root / key).stat().st_size
        except OSError:
            return None

    def write(self, key: str, data: bytes) -> None:
        with self._failing("write", key), self._unfinished(data) as temporary:
            self._move(temporary, self._ready(key))

    def create(self, key: str, data: bytes) -> bool:
        with self._failing("write", key), self._unfinished(data) as temporary:
            path = self._ready(key)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return self._create_by_claim(temporary, path)
            _flush_folder(path.parent)
            return True

    def _create_by_claim(self, temporary: Path, path: Path) -> bool:
        """Create-only where the file system has no links: the writer that creates the claim, alone, moves its file.

        A claim outlives a writer that was killed; it is then broken, and at worst two writers of one key both win.
        """
        claim = self.root / ".tmp" / (hashlib.sha256(str(path).encode()).hexdigest() + ".claim")
        while True:
            try:
                os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
                break
            except FileExistsError:
                if path.exists():
                    return False
                if _age_seconds(claim) > STALE_CLAIM_SECONDS:
                    claim.unlink(missing_ok=True)
                time.sleep(0.01)
        try:
            if path.exists():
                return False
            self._move(temporary, path)
            return True
        finally:
            claim.unlink(missing_ok=True)

    def delete(self, key: str) -> None:
        with self._failing("delete", key):
            (self.root / key).unlink(missing_ok=True)

    def keys(self, folder: str) -> list[str]:
        with self._failing("list", folder):
            walk = os.walk(self.root / folder, onerror=_raise_unless_missing)
            return [Path(parent, name).relative_to(self.root).as_posix() for parent, _, names in walk for name in names]

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of all objects below a folder, by key."""
        return {key: facts.size for key, facts in self.describe(folder).items()}

    def describe(self, folder: str) -> dict[str, ObjectFacts]:
        """Size and age of all objects below a folder, by key."""
        found = {}
        for key in self.keys(folder):
            with suppress(FileNotFoundError):
                facts = (self.root / key).stat()
                found[key] = ObjectFacts(key, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))
        return found

    def sign(self, key: str, seconds: int) -> str:
        raise UnsafeUrlError(f"{self.url} is a folder, and only what lies in a bucket has an address that can be signed; share the folder")

    def uploads(self) -> list[Upload]:
        """None: what a folder has of that lies in `.tmp`."""
        return []

    def abort(self, upload: Upload) -> None:
        raise StoreError(f"{self.url} is a folder, to which nothing is uploaded in parts; {upload.key} is none of its keys")

    def children(self, folder: str) -> list[str]:
        with self._failing("list", folder):
            try:
                return os.listdir(self.root / folder)
            except FileNotFoundError:
                return []

    @contextmanager
    def _unfinished(self, data: bytes) -> Iterator[Path]:
        path = self._ready(f".tmp/{uuid.uuid4().hex}")
        try:
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _ready(self, key: str) -> Path:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @staticmethod
    def _move(temporary: Path, path: Path) -> None:
        os.replace(temporary, path)
        _flush_folder(path.parent)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _flush_folder(folder: Path) -> None:
    """Make a new name in a folder outlive a loss of power: a marker must never survive its payload."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RemoteObjects:
    """Objects below a prefix of a bucket, or in the memory of this process; writes are whole or not at all."""

    _memory_lock = threading.Lock()  # the memory file system looks first and writes then

    def __init__(self, url: str, protocol: str, options: dict[str, Any], timeout: float):
        self.url = url
        self._protocol = protocol
        self._timeout = timeout
        self._secrets = [value for value in (*_strings(options), *_environment_secrets()) if len(value) > 3]
        try:
            if protocol == "s3":
                options = open_s3_session(options, timeout)
            elif protocol != "memory":
                options = {"use_listings_cache": False, **options}
            self._filesystem, self._root = url_to_fs(url, **options)
        except ImportError as error:
            extra = EXTRAS[protocol]
            raise MissingExtraError(f"{protocol}:// needs its driver: pip install 'pairlora[{extra}]'") from error

    def _failing(self, action: str, key: str):
        return failing_as_store_error(action, f"{self.url}/{key}", self._secrets)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def read(self, key: str) -> bytes | None:
        # one request for a small object instead of two: s3fs would ask for the size first
        options = {"max_concurrency": 1} if self._protocol == "s3" else {}
        with self._failing("read", key):
            try:
                return self._filesystem.cat_file(self._path(key), **options, **self._deadline())
            except FileNotFoundError as error:
                return _nothing(error, None)

    def exists(self, key: str) -> bool:
        with self._failing("read", key):
            return self._filesystem.exists(self._path(key), **self._deadline())

    def measure(self, key: str) -> int | None:
        """Bytes of an object; None where there is none."""
        with self._failing("look at", key):
            try:
                return self._filesystem.info(self._path(key), **self._deadline())["size"]
            except FileNotFoundError as error:
                return _nothing(error, None)

    def write(self, key: str, data: bytes) -> None:
        with self._failing("write", key):
            self._filesystem.pipe_file(self._path(key), data, **self._put_options(key, data))

    def create(self, key: str, data: bytes) -> bool:
        with self._failing("write", key), self._memory_lock if self._protocol == "memory" else nullcontext():
            try:
                self._filesystem.pipe_file(self._path(key), data, mode="create", **self._put_options(key, data))
            except Exception as error:  # each driver says "it exists" in a class of its own
                if not is_refusal(error):
                    raise
                return False
            return True

    def delete(self, key: str) -> None:
        with self._failing("delete", key), suppress(FileNotFoundError):
            self._filesystem.rm_file(self._path(key), **self._deadline())

    def keys(self, folder: str) -> list[str]:
        with self._failing("list", folder):
            try:
                found = [self._key(path) for path in self._filesystem.find(self._path(folder), **self._deadline())]
                return [key for key in found if key != folder.rstrip("/")]  # some servers list a folder that has become empty
            except FileNotFoundError as error:
                return _nothing(error, [])

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of all objects below a folder, by key, from one listing."""
        return {key: facts.size for key, facts in self.describe(folder).items()}

    def describe(self, folder: str) -> dict[str, ObjectFacts]:
        """Size and age of all objects below a folder, by key, from one listing."""
        with self._failing("list", folder):
            try:
                found = self._filesystem.find(self._path(folder), detail=True, **self._deadline())
            except FileNotFoundError as error:
                return _nothing(error, {})
        files = {self._key(path): facts for path, facts in found.items() if facts.get("type") == "file"}
        return {key: ObjectFacts(key, facts["size"], read_change(facts)) for key, facts in files.items() if key != folder.rstrip("/")}

    def sign(self, key: str, seconds: int) -> str:
        """An https address of an object that needs no credentials for so long, or for as long as those behind it last."""
        with self._failing("sign", key):
            try:
                return self._filesystem.sign(self._path(key), expiration=seconds)
            except (NotImplementedError, ImportError) as error:
                raise StoreError(f"the driver of {self._protocol}:// cannot sign addresses here: {error}") from error

    def children(self, folder: str) -> list[str]:
        with self._failing("list", folder):
            try:
                paths = self._filesystem.ls(self._path(folder), detail=False, **self._deadline())
                return [path.rstrip("/").rpartition("/")[2] for path in paths]
            except FileNotFoundError as error:
                return _nothing(error, [])

    def uploads(self) -> list[Upload]:
        """The uploads in parts below the root that were begun and never ended; the other clouds list none, and drop them by themselves."""
        if self._protocol != "s3":
            return []
        bucket, _, prefix = self._root.partition("/")
        with self._failing("list the unfinished uploads of", ""):
            return list(list_uploads(self._call_s3, bucket, f"{prefix}/" if prefix else ""))

    def abort(self, upload: Upload) -> None:
        """Let go of an upload; no error where it has ended meanwhile."""
        with self._failing("abort the upload of", self._key(f"{upload.bucket}/{upload.key}")), suppress(FileNotFoundError):
            abort_upload(self._call_s3, upload)

    def _call_s3(self, operation: str, **arguments: Any) -> dict[str, Any]:
        return self._filesystem.call_s3(operation, **arguments, **self._deadline())

    def _key(self, path: str) -> str:
        return path.lstrip("/").removeprefix(self._root.lstrip("/")).lstrip("/")

    def _deadline(self, size: int = 0) -> dict[str, Any]:
        """The seconds within which a call ends, as fsspec's synchronous methods take them; `size` in bytes is what it writes."""
        return {"timeout": self._timeout + size / 1e6} if self._filesystem.async_impl else {}

    def _put_options(self, key: str, data: bytes) -> dict[str, Any]:
        """The deadline, and what a browser must know of a report."""
        if self._protocol == "memory":
            return {}
        options = self._deadline(len(data))
        if self._protocol == "s3":
            options["chunksize"] = LARGEST_PUT
        content_type = mimetypes.guess_type(key)[0]
        name = {"s3": "ContentType", "gs": "content_type", "gcs": "content_type"}.get(self._protocol)
        if content_type and name:
            options[name] = content_type
        return options


def _environment_secrets() -> list[str]:
    """Credentials that drivers take from the environment, to be blotted out of what they say."""
    return [value for name, value in os.environ.items() if SECRET_VARIABLES.fullmatch(name)]


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [string for name, item in value.items() if name not in PUBLIC_OPTIONS for string in _strings(item)]
    return [value] if isinstance(value, str) else []


def _nothing(error: FileNotFoundError, nothing: Any) -> Any:
    """`nothing`, unless it is the bucket that is missing: that is a wrong URL, not an empty store."""
    response = getattr(error.__cause__, "response", None)
    if isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchBucket":  # S3 alone says so
        raise error
    return nothing
