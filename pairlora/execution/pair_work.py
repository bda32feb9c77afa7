"""One pair on its way through a shard: its pictures, its adapter, what it cost, and the error that ended it."""

import logging
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from PIL import Image

from pairlora.adapters.files import Matrices
from pairlora.errors import CorruptObjectError, NoSpaceError, PairloraError, StoreError
from pairlora.execution.shard_log import naming_pairs
from pairlora.records import ImageReference, Job, Outcome
from pairlora.store.failures import is_full
from pairlora.training.packs import TrainingPair

log = logging.getLogger(__name__)


@dataclass
class PairWork:
    """One pair on its way through a shard; `error` ends it."""

    job: Job
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    content: Image.Image = field(init=False)
    style: Image.Image = field(init=False)
    adapter: Matrices = field(init=False)
    references: list[ImageReference] = field(default_factory=list)
    error: Exception | None = None
    trained: bool = False
    images_drawn: int = 0
    images_reused: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "draw": 0.0, "score": 0.0})
    given_up: list[Outcome] = field(default_factory=list)
    """Trainings that diverged and were begun again, each as a try of its own."""

    @contextmanager
    def isolated(self, phase: str) -> Iterator[None]:
        """Time a phase of the pair and catch what goes wrong in it. A store that fails is no fault of the pair."""
        started = time.monotonic()
        try:
            with naming_pairs([self.job.pair.pair_id]), self._caught():
                yield
        finally:
            self.seconds[phase] += time.monotonic() - started

    @contextmanager
    def _caught(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if not isinstance(error, CorruptObjectError):
                raise
            log.warning("%s: %s", self.job.pair.pair_id, error)
            self.error = error
        except PairloraError as error:
            log.warning("%s: %s", self.job.pair.pair_id, error)
            self.error = error
        except Exception as error:  # the one place where a pair is isolated from its neighbours
            if is_full(error):
                raise NoSpaceError(f"a disk of this machine is full: {error}; free some space, and the same command goes on") from error
            log.exception("%s: unexpected error", self.job.pair.pair_id)
            self.error = error

    def conclude(self, device: str) -> Outcome:
        """The outcome of the pair as it stands."""
        status = "failed" if self.error is not None else "done" if self.trained or self.images_drawn else "reused"
        return Outcome(
            pair_id=self.job.pair.pair_id,
            row=self.job.pair.row,
            status=status,
            fingerprint=self.job.fingerprint,
            error_class=type(self.error).__name__ if self.error else "",
            error_message=str(self.error) if self.error else "",
            trained=self.trained,
            images_drawn=self.images_drawn,
            images_reused=self.images_reused,
            started_at=self.started_at,
            ended_at=datetime.now(UTC),
            device=device,
            train_seconds=self.seconds["train"],
            draw_seconds=self.seconds["draw"],
            score_seconds=self.seconds["score"],
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )

    def begin_again(self, error: Exception, device: str) -> None:
        """Put what was tried so far down as a try that failed, and begin another one."""
        self.error = error
        self.given_up.append(self.conclude(device))
        self.error, self.started_at = None, datetime.now(UTC)

    def describe_training(self) -> TrainingPair:
        """What the training of the pair reads."""
        prompt = self.job.pair.training_prompt
        return TrainingPair(self.job.fingerprint, self.content, self.style, prompt, self.job.pair.style_prompt(prompt))
