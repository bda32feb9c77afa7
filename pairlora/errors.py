"""One tree of errors: what a caller may catch, and what a failed row of the report names."""

from collections.abc import Sequence


class PairloraError(Exception):
    """Root of every error that the library raises on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(PairloraError):
    """A configuration that cannot be run; the message names the field and the remedy."""

    exit_code = 2


class ManifestError(PairloraError):
    """A manifest that cannot be read, or rows of it that are wrong.

    `problems` holds the first hundred as records, `count` how many there are in all.
    """

    exit_code = 2

    def __init__(self, url: str, problems: Sequence[object], count: int | None = None):
        self.url = url
        self.problems = list(problems)
        self.count = len(self.problems) if count is None else count
        noun = "problem" if self.count == 1 else "problems"
        lines = [f"{self.count} {noun} in {url}:", *(f"  {problem}" for problem in self.problems)]
        if self.count > len(self.problems):
            lines.append(f"  … and {self.count - len(self.problems)} more")
        super().__init__("\n".join(lines))


class PictureError(PairloraError):
    """A picture that cannot be used: missing, empty, too large, truncated, animated, or no picture at all."""


class MissingPictureError(PictureError):
    """There is nothing to read at the picture's URL."""


class EmptyPictureError(PictureError):
    """The picture's file has no bytes."""


class PictureTooLargeError(PictureError):
    """The picture's file or its pixels exceed the limits; it was not decoded."""


class CorruptPictureError(PictureError):
    """The file is a picture by its header and cannot be decoded to the end."""


class AnimatedPictureError(PictureError):
    """The file holds several frames, and which one is meant is not ours to guess."""


class NotAPictureError(PictureError):
    """The file's bytes are those of no picture format that is allowed."""


class ForgottenPictureError(PictureError):
    """The store has a tombstone for the picture: it is not to be trained on."""


class UnsafeUrlError(PairloraError):
    """A URL with a protocol that is off, a chained URL, or a path that leaves its folder."""


class BaseModelError(PairloraError):
    """A base model that cannot be loaded or used; the message names what is missing."""


class LicenceError(BaseModelError):
    """A base whose licence is not on the run's list."""

    exit_code = 2


class RankError(PairloraError):
    """Content and style rank together exceed the width of a layer."""


class DivergedError(PairloraError):
    """Losses or gradients of a pair stopped being finite numbers."""


class AdapterFileError(PairloraError):
    """An adapter file that cannot be read as one."""


class MissingAdapterError(PairloraError):
    """A pair whose adapter is not in the store, in a run that trains none."""


class StoreError(PairloraError):
    """The store cannot be reached, read or written; the message names the URL."""

    exit_code = 3


class UnsafeStoreError(StoreError):
    """The target does not honour create-only writes, so several writers could overwrite each other."""


class NoSpaceError(StoreError):
    """The disk or the bucket is full. Every pair would fail alike, so it ends the run, which goes on once there is space."""


class CorruptObjectError(StoreError):
    """An object of the store has not the size or digest that its marker states."""


class WorkerError(PairloraError):
    """A worker process died, or ran past its time."""


class LostPortionError(PairloraError):
    """A portion whose machines were lost, time after time, without a pair of it getting done."""


class DispatchError(PairloraError):
    """Other machines cannot be asked for work now: what passes it on does not answer."""


class StoppedError(PairloraError):
    """Work that was given up because its run is ending; the next run does it."""

    exit_code = 130


class MissingFlowError(PairloraError):
    """The flow file is not where it was looked for."""

    exit_code = 2


class MissingExtraError(PairloraError):
    """An optional package is needed and not installed; the message says which extra brings it."""

    exit_code = 2


class TooManyFailuresError(PairloraError):
    """A larger share of the rows failed than the configuration allows. Run `run_id` has its report, and what was done is in the store."""

    exit_code = 5

    def __init__(self, message: str, run_id: str = ""):
        super().__init__(message)
        self.run_id = run_id
