"""Progress as small records: the library reports, and the command line or a flow decides how to show it."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ProgressEvent:
    """`done` of `total` units of a phase ('train', 'draw', 'score', 'pairs') of one shard; `facts` are shown beside it, as losses are."""

    phase: str
    done: int
    total: int
    unit: str
    shard: str = ""
    facts: dict[str, float] = field(default_factory=dict)


Listener = Callable[[ProgressEvent], None]


def ignore(event: ProgressEvent) -> None:
    """The listener of callers that show nothing."""
