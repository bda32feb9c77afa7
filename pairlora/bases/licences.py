"""Under which licence a base may be used, and whether a run allows it: asked before anything is trained."""

import re
from pathlib import Path
from typing import Any

import yaml

from pairlora.config import UNKNOWN_LICENCE, BaseConfig
from pairlora.errors import LicenceError
from pairlora.presets import HUB_IDS

LICENCES = {
    "embedded": "cc-by-4.0",
    "sdxl": "openrail++",
    "sd15": "creativeml-openrail-m",
    "flux": "flux-1-dev-non-commercial-license",
}
"""Licences of the named bases, in the hub's words; the embedded one's is the strictest of those of its data (see NOTICE)."""


def check_licence(base: BaseConfig, section: str = "base") -> str:
    """The licence of a base, or of what `section` of the configuration names. LicenceError where the configuration's list has it not."""
    licence = find_licence(base)
    if licence not in {allowed.strip().lower() for allowed in base.allowed_licences}:
        known = "is not known" if licence == UNKNOWN_LICENCE else f"is '{licence}'"
        raise LicenceError(
            f"the licence of {section} '{base.name}' {known}, and base.allowed_licences has no such entry; choose another, "
            f"or read the licence and add it to the list ({section}.licence names it where it is not known)"
        )
    return licence


def find_licence(base: BaseConfig) -> str:
    """What the configuration says, else what is known of the name, else the front matter of the folder's card; 'unknown' where none says.

    A single file descends from its `config`, whose terms it inherits as far as anyone here can tell.
    """
    if base.licence:
        return base.licence.strip().lower()
    for name in filter(None, (base.name, base.config)):
        if (known := LICENCES.get(HUB_IDS.get(name, name)) or read_card(Path(name))) is not None:
            return known
    return UNKNOWN_LICENCE


def read_card(folder: Path) -> str | None:
    """The licence in the YAML front matter of a folder's README.md, as the hub writes cards; null where there is none."""
    try:
        text = (folder / "README.md").read_text(errors="replace")
        front: Any = yaml.safe_load(found[1]) if (found := re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)) else None
    except (OSError, yaml.YAMLError):
        return None
    if not isinstance(front, dict):
        return None
    licence = front.get("license_name") if front.get("license") == "other" else front.get("license")
    return licence.strip().lower() if isinstance(licence, str) and licence.strip() else None
