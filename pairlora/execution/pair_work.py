"""One row of a manifest on its way through a shard: what was made of it, what it cost, and the error that ended it."""

import logging
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from PIL import Image

from pairlora.adapters.files import Matrices
from pairlora.config import PictureLimits
from pairlora.errors import CorruptObjectError, NoSpaceError, PairloraError, PictureError, StoreError
from pairlora.execution.shard_log import naming_pairs
from pairlora.images import read_picture
from pairlora.records import AdapterRecord, ImageReference, Job, Outcome, RowJob
from pairlora.store.failures import is_full
from pairlora.store.urls import name_url
from pairlora.training.packs import TrainingPair

log = logging.getLogger(__name__)
AnyJob = TypeVar("AnyJob", bound=RowJob)


@dataclass
class RowWork(Generic[AnyJob]):
    """One row of a manifest on its way through a shard; `error` ends it."""

    job: AnyJob
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    error: Exception | None = None
    trained: bool = False
    images_drawn: int = 0
    images_reused: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "draw": 0.0, "score": 0.0})
    given_up: list[Outcome] = field(default_factory=list)
    """Trainings that diverged and were begun again, each as a try of its own."""

    def isolated(self, phase: str) -> AbstractContextManager[None]:
        """Time a phase of the row and catch what goes wrong in it. A store that fails is no fault of the row."""
        return isolated_together([self], phase)

    def conclude(self, device: str) -> Outcome:
        """The outcome of the row as it stands."""
        status = "failed" if self.error is not None else "done" if self.trained or self.images_drawn else "reused"
        return Outcome(
            pair_id=self.job.row_id,
            row=self.job.row,
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


@contextmanager
def isolated_together(works: Sequence[RowWork[Any]], phase: str) -> Iterator[None]:
    """Time a phase of rows that are worked on at once, each its share, and let what goes wrong in it end them all."""
    started = time.monotonic()
    try:
        with naming_pairs(work.job.row_id for work in works), _caught(works):
            yield
    finally:
        for work in works:
            work.seconds[phase] += (time.monotonic() - started) / len(works)


@contextmanager
def _caught(works: Sequence[RowWork[Any]]) -> Iterator[None]:
    names = ",".join(work.job.row_id for work in works)
    try:
        yield
    except StoreError as error:
        if not isinstance(error, CorruptObjectError):
            raise
        log.warning("%s: %s", names, error)
        _end(works, error)
    except PairloraError as error:
        log.warning("%s: %s", names, error)
        _end(works, error)
    except Exception as error:  # the one place where a row is isolated from its neighbours
        if is_full(error):
            raise NoSpaceError(f"a disk of this machine is full: {error}; free some space, and the same command goes on") from error
        log.exception("%s: unexpected error", names)
        _end(works, error)


def _end(works: Sequence[RowWork[Any]], error: Exception) -> None:
    for work in works:
        work.error = error


@dataclass
class PairWork(RowWork[Job]):
    """One pair on its way through a shard."""

    content: Image.Image = field(init=False)
    style: Image.Image = field(init=False)
    adapter: Matrices = field(init=False)
    stored: AdapterRecord | None = None
    """The marker of the adapter, where it is known without asking the store."""
    references: list[ImageReference] = field(default_factory=list)
    spill: float | None = None

    def conclude(self, device: str) -> Outcome:
        """The outcome of the pair as it stands, with what was measured of its adapter."""
        return super().conclude(device).model_copy(update={"spill": self.spill})

    def begin_again(self, error: Exception, device: str) -> None:
        """Put what was tried so far down as a try that failed, and begin another one."""
        self.error = error
        self.given_up.append(self.conclude(device))
        self.error, self.started_at = None, datetime.now(UTC)

    def describe_training(self) -> TrainingPair:
        """What the training of the pair reads."""
        prompt = self.job.pair.training_prompt
        return TrainingPair(self.job.fingerprint, self.content, self.style, prompt, self.job.pair.style_prompt(prompt))


def read_planned(url: str, sha256: str, limits: PictureLimits) -> Image.Image:
    """A picture of the manifest, which must still be the one that was planned: its digest is part of identities."""
    picture = read_picture(url, limits)
    if picture.sha256 != sha256:
        raise PictureError(f"{name_url(url)} was changed after the run was planned; run again to plan with the new picture")
    return picture.image
