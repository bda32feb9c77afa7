"""The tries at a pair as its page tells of them: when, where, how each ended, and where its log lies."""

from dataclasses import dataclass

from pairlora.records import Outcome
from pairlora.report.collection import PairContents
from pairlora.store.keys import log_path


@dataclass(frozen=True)
class Try:
    """One try; `log` leads from the run's folder to what was logged meanwhile."""

    begun: str
    ended: str
    device: str
    log: str


def list_tries(pair: PairContents) -> tuple[Try, ...]:
    """The tries at a pair, the first one first; none for what no shard began."""
    return tuple(describe_try(outcome) for outcome in pair.tries)


def describe_try(outcome: Outcome) -> Try:
    """A try in words."""
    begun = f"{outcome.started_at:%Y-%m-%d %H:%M:%S} UTC" if outcome.started_at else ""
    return Try(begun, describe_end(outcome), outcome.device, log_path(f"{outcome.shard}.{outcome.attempt}"))


def describe_end(outcome: Outcome) -> str:
    """How a try ended, with its error where it had one."""
    if outcome.status == "pending":
        return "no end is known: its process was killed, or is at work still"
    lasted = f" after {(outcome.ended_at - outcome.started_at).total_seconds():.0f} s" if outcome.ended_at and outcome.started_at else ""
    error = f": {outcome.error_class}: {outcome.error_message}" if outcome.error_class else ""
    return f"{outcome.status}{lasted}{error}"
