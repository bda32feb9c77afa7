"""What people decide on adapters: one file a decision, never replaced, read again by every report."""

import math
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from pydantic import ValidationError

from pairlora.errors import ConfigError, StoreError
from pairlora.records import PlannedJob, Review
from pairlora.store.parts import decode_records
from pairlora.store.run_store import RunStore

Decision = Literal["accept", "reject"]


def read_reviews(store: RunStore, fingerprints: Iterable[str]) -> dict[tuple[str, str], list[Review]]:
    """Decisions by (pair id, fingerprint), the newest last."""
    found: dict[tuple[str, str], list[Review]] = defaultdict(list)
    for review in sorted(store.read_reviews(fingerprints, Review), key=lambda review: review.reviewed_at):
        found[review.pair_id, review.fingerprint].append(review)
    return found


def describe_review(review: Review) -> str:
    """A decision in words."""
    strength = f", λ {review.strength:g}" if review.strength is not None else ""
    comment = f": {review.comment}" if review.comment else ""
    return f"{review.verdict}ed by {review.reviewer}, {review.reviewed_at:%Y-%m-%d %H:%M} UTC{strength}{comment}"


class ReviewDesk:
    """Takes down decisions on the pairs of one run."""

    def __init__(self, store: RunStore, run_id: str | None = None):
        """`run_id` left out means the newest run. ConfigError where the store has none, StoreError where not that one."""
        runs = store.list_runs()
        if not runs:
            raise ConfigError(f"{store.url} holds no run; `pairlora run` makes one")
        if run_id is not None and run_id not in runs:
            raise StoreError(f"{store.url} has no run {run_id!r}; its runs are: {', '.join(runs)}")
        self.store = store
        self.run_id = run_id or runs[-1]
        plan = store.read_parts(self.run_id).get("plan")
        planned = decode_records(plan, PlannedJob) if plan else []
        self.fingerprints = {job.pair_id: job.fingerprint for job in planned}

    def check(self, pair_ids: Iterable[str]) -> None:
        """ConfigError where a pair is none of the run."""
        for pair_id in pair_ids:
            if pair_id not in self.fingerprints:
                raise ConfigError(f"run {self.run_id} has no pair {pair_id!r}; its pairs are: {', '.join(list(self.fingerprints)[:20])}")

    def decide(self, pair_id: str, verdict: Decision, *, reviewer: str, strength: float | None = None, comment: str = "") -> Review:
        """Record a decision on a pair of the run. ConfigError where there is no such pair or the decision is not a valid one."""
        self.check([pair_id])
        fingerprint = self.fingerprints[pair_id]
        if strength is not None and not (math.isfinite(strength) and strength > 0):
            raise ConfigError(f"strength = {strength:g} is none; give a number above 0, in the units of the guidance scale")
        try:
            review = Review(
                run_id=self.run_id,
                pair_id=pair_id,
                fingerprint=fingerprint,
                verdict=verdict,
                strength=strength,
                comment=comment.strip(),
                reviewer=reviewer.strip(),
                reviewed_at=datetime.now(UTC),
            )
        except ValidationError as error:
            problem = error.errors()[0]
            raise ConfigError(f"{problem['loc'][0]}: {problem['msg']}") from error
        digest = sha256(review.model_dump_json().encode()).hexdigest()
        self.store.add_review(fingerprint, f"{review.reviewed_at:%Y%m%dT%H%M%S%fZ}-{digest[:8]}", review)
        return review

    def read(self) -> dict[str, list[Review]]:
        """All decisions on the run's pairs and their present adapters, by pair id, the newest last."""
        found = read_reviews(self.store, self.fingerprints.values())
        return {pair_id: reviews for (pair_id, _), reviews in found.items() if pair_id in self.fingerprints}
