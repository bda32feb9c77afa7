"""The rows of a catalogue on their way to assets: every problem of a row is found, not the first alone."""

import re
from collections.abc import Mapping
from typing import Any

from pairlora.catalogue.records import Asset
from pairlora.manifest.reading import read_rows, sort_rows
from pairlora.manifest.rows import BadRow, RowCheck, shorten
from pairlora.store.urls import Folder

COLUMNS = ("asset_id", "image", "prompt", "mask", "truth", "group", "licence")
LONGEST_ID = 180
"""Bytes of an id in UTF-8: with adapter, strength and suffix it is a file's name, which may have 255."""

_UNNAMEABLE = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff/\\<>:"|?*]|^[.\s]|[.\s]$')
_COLUMN = re.compile(r"\{(\w+)\}")


class AssetReader:
    """Turns the rows of one catalogue into assets; knows its folder, the ids that it has seen, and the template of prompts."""

    def __init__(self, manifest: str, prompt_template: str | None):
        self._folder = Folder(manifest)
        self._template = prompt_template
        self._rows: dict[str, int] = {}
        self._named = tuple(_COLUMN.findall(prompt_template or ""))
        self.required = ("asset_id", "image", *([] if prompt_template else ["prompt"]), *(set(self._named) - set(COLUMNS)))
        self.columns = (*COLUMNS, *(name for name in self._named if name not in COLUMNS))

    def read(self, row: int, cells: Mapping[str, Any]) -> Asset | BadRow:
        """The asset of a row, or its problems."""
        check = RowCheck(row, cells)
        check.blame_unknown(self.columns)
        asset_id = self._read_id(check)
        fields = {
            "image": check.read_url("image", self._folder, required=True),
            "prompt": self._read_prompt(check),
            "mask": check.read_url("mask", self._folder),
            "truth": self._read_truth(check),
            "group": check.read_text("group"),
            "licence": check.read_text("licence"),
        }
        if check.problems:
            return BadRow(row=row, pair_id=asset_id, problems=tuple(check.problems))
        return Asset(row=row, asset_id=asset_id, **fields)

    def _read_id(self, check: RowCheck) -> str:
        asset_id = check.read_text("asset_id", required=True)
        if not asset_id:
            return ""
        if _UNNAMEABLE.search(asset_id) or len(asset_id.encode()) > LONGEST_ID:
            what = f"id {shorten(asset_id)} cannot be a file's name"
            check.blame("asset_id", what, f'take out / \\ < > : " | ? * and dots at its ends; {LONGEST_ID} bytes at most')
            return ""
        # some disks tell no capitals from small letters, and output files are named after assets
        first = self._rows.setdefault(asset_id.casefold(), check.row)
        if first != check.row:
            check.blame("asset_id", f"id {asset_id!r} repeats row {first}", "give each asset an id of its own")
        return asset_id

    def _read_prompt(self, check: RowCheck) -> str:
        """The row's own prompt, else the template over its columns."""
        prompt = check.read_text("prompt", required=self._template is None)
        if prompt or self._template is None:
            return prompt
        told = {name: self._read_column(check, name) for name in self._named}
        return _COLUMN.sub(lambda match: told[match[1]], self._template).strip()

    def _read_column(self, check: RowCheck, name: str) -> str:
        value = check.cells.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"{value:g}"
        return check.read_text(name, required=True)

    def _read_truth(self, check: RowCheck) -> dict[str, str]:
        """URLs by adapter or group; a URL alone is the truth of every adapter."""
        value = check.cells.get("truth")
        if isinstance(value, str) and value.strip() and not value.lstrip().startswith("{"):
            return {"": check.read_url("truth", self._folder)}
        truth = check.read_map("truth", "an adapter or a group and a URL")
        for name, url in truth.items():
            if not isinstance(url, str) or not url.strip():
                check.blame("truth", f"the value of {shorten(name)} is not a URL", "write the URL of a picture as text")
                return {}
        return {name.strip(): check.resolve("truth", self._folder, url.strip()) for name, url in truth.items()}


def load_assets(url: str, prompt_template: str | None, *, skip_bad_rows: bool) -> tuple[list[Asset], list[BadRow]]:
    """All assets of a catalogue, and its bad rows; unless they are to be skipped, these raise one ManifestError together."""
    return sort_rows(url, read_rows(url, lambda: AssetReader(url, prompt_template)), skip_bad_rows=skip_bad_rows)
