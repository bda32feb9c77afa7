"""LoRA files of any trainer that a catalogue is drawn with: read once, at planning, and kept in the store, which workers read alone."""

import logging
import re
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from pairlora.catalogue.config import CatalogueConfig
from pairlora.catalogue.records import ChosenAdapter, ForeignFile, ForeignRecord
from pairlora.errors import AdapterFileError, ConfigError, CorruptObjectError, MissingAdapterError, UnsafeUrlError
from pairlora.store.run_store import RunStore
from pairlora.store.urls import name_url

if TYPE_CHECKING:
    from pairlora.adapters.files import Matrices
    from pairlora.adapters.foreign import LoraFile
    from pairlora.bases.interface import Base

SUFFIX = ".safetensors"
LONGEST_LABEL = 40
"""Letters of a label at most: with asset, strength and suffix it is a file's name."""

REMEDY = "so the style would not be whole; --partial draws without them"

log = logging.getLogger(__name__)


def is_file(name: str) -> bool:
    """Whether an adapter's name means a file, a folder of PEFT or a URL; every other one is a name of the store."""
    path = Path(name)
    return name.lower().endswith(SUFFIX) or "://" in name or path.is_file() or (path / "adapter_config.json").is_file()


def assign_templates(adapters: Sequence[str], templates: Sequence[str]) -> dict[str, str]:
    """Style templates by adapter: the first for the first adapter that is a file, and so on. ConfigError where there are too many."""
    files = [name for name in adapters if is_file(name)]
    if len(templates) > len(files):
        raise ConfigError(
            f"--style-template was given {len(templates)} times, and {len(files)} adapters are files; "
            "adapters of the store know how prompts read in their styles"
        )
    return dict(zip(files, templates, strict=False))


class FileShelf:
    """The LoRA files of a run. Each is read once, and what is planned with are these bytes, whatever becomes of the file."""

    def __init__(self, run: CatalogueConfig, tombstones: Set[str]):
        self._run = run
        self._tombstones = tombstones
        self._files: dict[str, LoraFile] = {}

    def open(self, name: str) -> ChosenAdapter:
        """The adapter in a file, labelled by its name. ConfigError with all that is wrong with it."""
        from pairlora.adapters.files import derive_template, pick_facts
        from pairlora.adapters.foreign import read_lora

        try:
            file = read_lora(name if "://" in name else Path(name))
        except AdapterFileError as error:
            raise ConfigError(f"adapters: {error}") from error
        except UnsafeUrlError as error:
            raise ConfigError(f"adapters: {name_url(name)} cannot be opened; name a file, a folder, or a URL of s3, gs or az") from error
        template = self._run.style_templates.get(name) or derive_template(pick_facts(file.header))
        left_out, problems = self._fit(file)
        if not template:
            problems.append("it does not say how prompts read in its style, give --style-template '{prompt}, in …' (style_templates)")
        if file.sha256 in self._tombstones:
            problems.append("it was forgotten in this store, take it out")
        if problems:
            raise ConfigError(f"adapters: {name_url(name)}: {'; '.join(problems)}")
        if left_out:
            log.warning("%s: %s; drawn without them", name_url(name), left_out)
        self._files[file.identity] = file
        told = ForeignFile(source=name_url(name), style_template=template, left_out=left_out)
        return ChosenAdapter(label=name_label(name), fingerprint=file.identity, file=told)

    def _fit(self, file: "LoraFile") -> tuple[str, list[str]]:
        """What of a file is left out, and what is wrong with it on the run's base; a base that is not here judges in its worker."""
        from pairlora.adapters.foreign import describe_left_out, map_to_base
        from pairlora.bases.outlines import outline_base

        base = self._run.base
        if (outline := outline_base(base.name, base.revision, base.config)) is None:
            return "", []
        try:
            left_out = map_to_base(file, outline.denoiser, outline.family).left_out
        except AdapterFileError as error:
            return "", [f"{error} ('{base.name}')"]
        if not left_out:
            return "", []
        words = describe_left_out(left_out)
        return words, [] if self._run.partial else [f"{words}, {REMEDY}"]

    def keep(self, store: RunStore) -> None:
        """Write the files that the store lacks, each before its marker."""
        for fingerprint, file in self._files.items():
            known = store.read_marker("foreign", fingerprint, ForeignRecord)
            if known is not None and store.find_whole({known.url: known.bytes}):
                continue
            stored = store.put_foreign(file.data)
            record = ForeignRecord(
                fingerprint=fingerprint,
                settings=dict(file.settings),
                trained_as=file.header.get("pairlora.fingerprint", ""),
                url=stored.key,
                sha256=stored.sha256,
                bytes=stored.bytes,
            )
            store.mark_done("foreign", fingerprint, record)


def name_label(name: str) -> str:
    """The name of a file or folder as tables and file names may have it."""
    stem = re.split(r"[/\\]", re.sub(r"[?#].*", "", name) if "://" in name else str(Path(name).absolute()))
    last = next((part for part in reversed(stem) if part), "")
    last = last[: -len(SUFFIX)] if last.lower().endswith(SUFFIX) else last
    return re.sub(r"[^\w.-]+", "-", last).strip("-.")[:LONGEST_LABEL] or "lora"


def read_foreign(store: RunStore, adapter: ChosenAdapter, base: "Base", *, partial: bool) -> "Matrices":
    """The style matrices of a LoRA file as it was planned, out of the store.

    MissingAdapterError or CorruptObjectError where the store lost it, AdapterFileError where it does not fit the base.
    """
    from pairlora.adapters.foreign import decode_lora, describe_left_out, map_to_base

    again = "the same command stores it again"
    record = store.read_marker("foreign", adapter.fingerprint, ForeignRecord)
    if record is None:
        raise MissingAdapterError(f"the file of {adapter.label} is no longer in the store; {again}")
    try:
        file = decode_lora(store.read_payload(record.url, record.sha256, record.bytes), record.settings)
    except CorruptObjectError:
        store.drop_marker("foreign", adapter.fingerprint)
        raise
    if file.identity != adapter.fingerprint:
        raise CorruptObjectError(f"the marker of {adapter.label} is of another file; delete it below done/foreign, and {again}")
    try:
        found = map_to_base(file, base.denoiser, base.family)
    except AdapterFileError as error:
        raise AdapterFileError(f"{adapter.label}: {error}") from error
    if found.left_out:
        words = f"{adapter.label}: {describe_left_out(found.left_out)}"
        if not partial:
            raise AdapterFileError(f"{words}, {REMEDY}")
        log.warning("%s; drawn without them", words)
    return found.matrices
