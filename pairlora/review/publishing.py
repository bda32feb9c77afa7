"""Accepted adapters in a release folder, with all that the run and the reviewer say of them."""

from pairlora.release.exporting import Published, read_releases, write_releases
from pairlora.release.files import Precision
from pairlora.review.decisions import ReviewDesk
from pairlora.store.run_store import RunStore


def publish_run(store: RunStore, run_id: str | None, to: str, precision: Precision = "float32") -> list[Published]:
    """Write what was accepted in a run (the newest where left out) to `to`, a folder or bucket, one folder a pair.

    Raises CorruptObjectError where an adapter is damaged; what was written before stays.
    """
    desk = ReviewDesk(store, run_id)
    accepted = read_releases(store, desk.run_id, lambda pair: pair.decision is not None and pair.decision.verdict == "accept")
    return write_releases(store, accepted, to, precision)
