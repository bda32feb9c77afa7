"""What `pairlora doctor` looks at: versions, devices, the embedded base, a store, Prefect."""

import importlib.util
import os
import urllib.error
import urllib.request

from pairlora.bases.loading import EMBEDDED
from pairlora.errors import PairloraError
from pairlora.execution.runs import list_versions
from pairlora.execution.workers import count_cores, count_cuda_devices
from pairlora.records import Record
from pairlora.store.run_store import RunStore


class Finding(Record):
    """One thing that was looked at. `well` is false where something must be done, and `found` says what."""

    topic: str
    found: str
    well: bool = True


def diagnose(output: str | None) -> list[Finding]:
    """All findings, in the order in which they matter."""
    versions = ", ".join(f"{name} {version}" for name, version in list_versions().items())
    gpus = count_cuda_devices()
    findings = [
        Finding(topic="versions", found=versions),
        Finding(topic="devices", found=f"{gpus} GPUs, {count_cores()} cores"),
        _look_at_base(),
        _look_at_perceptual(),
        _look_at_prefect(),
    ]
    return findings + ([_look_at_store(output)] if output else [])


def _look_at_base() -> Finding:
    if (EMBEDDED / "model_index.json").is_file():
        size = sum(path.stat().st_size for path in EMBEDDED.rglob("*.safetensors"))
        return Finding(topic="embedded base", found=f"{size / 1e6:.0f} MB of weights")
    return Finding(topic="embedded base", found=f"missing in {EMBEDDED}; install the wheel or run `make base`", well=False)


def _look_at_perceptual() -> Finding:
    there = importlib.util.find_spec("efficientnet_lite_pytorch") is not None
    return Finding(topic="perceptual features", found="installed" if there else "not installed (extra pairlora[perceptual])")


def _look_at_prefect() -> Finding:
    if importlib.util.find_spec("prefect") is None:
        return Finding(topic="Prefect", found="not installed; `pairlora run` needs pip install 'pairlora[prefect]'", well=False)
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return Finding(topic="Prefect", found="no server configured; runs start one of their own")
    if not url.startswith(("http://", "https://")):
        return Finding(topic="Prefect", found="PREFECT_API_URL is not an http URL; correct or unset it", well=False)
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=5):  # noqa: S310  the scheme is checked above
            return Finding(topic="Prefect", found="the configured server answers")
    except (urllib.error.URLError, OSError) as error:
        return Finding(topic="Prefect", found=f"the server of PREFECT_API_URL does not answer ({error}); start it or unset it", well=False)


def _look_at_store(output: str) -> Finding:
    try:
        RunStore(output).probe()
    except PairloraError as error:
        return Finding(topic="store", found=str(error), well=False)
    return Finding(topic="store", found=f"{RunStore(output).url} can be written and honours create-only writes")
