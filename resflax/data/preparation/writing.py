"""Errors for sets that cannot be written."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from resflax.errors import TrainingError
from resflax.files import reason_of
from resflax.text import path_text

CONTINUES = "the files that are finished are kept, and the same command continues"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an `OSError` while a set is written or checked into a `TrainingError`."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output went away
        raise
    except OSError as error:
        raise not_written(path, error) from None


def not_written(path: Path, error: Exception) -> TrainingError:
    """The error for a set that could not be written to `path`."""
    return TrainingError(f"{path_text(path)} could not be written: {reason_of(error)}; {CONTINUES}")
