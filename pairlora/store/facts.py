"""What a listing says of an object."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class ObjectFacts:
    """An object without its bytes; `changed_at` is null where the driver does not say."""

    key: str
    size: int
    changed_at: datetime | None


def read_change(facts: Mapping[str, Any]) -> datetime | None:
    """When an object was written, which each driver names in a way of its own."""
    found = next((facts[name] for name in ("LastModified", "last_modified", "mtime", "updated", "created") if facts.get(name)), None)
    if isinstance(found, str):
        found = datetime.fromisoformat(found)
    if isinstance(found, (int, float)):
        found = datetime.fromtimestamp(found, UTC)
    return found.replace(tzinfo=found.tzinfo or UTC) if isinstance(found, datetime) else None
