"""Checks what surrounds a command: its output's encoding, its folder, and JAX's variables."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator

from resflax.errors import UsageError
from resflax.text import one_line

# What JAX says while it is imported about an environment variable that has no allowed value.
_JAX_VARIABLE = re.compile(r"for environment '(JAX_\w+)'|(?:option|flag|variable) '?\"?(jax_\w+)")


def let_streams_print_everything() -> None:
    """Lets stdout and stderr print characters that their encoding lacks, as in `gr\\xf6\\xdfer`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def readable_surroundings() -> Iterator[None]:
    """Raises `UsageError` if the working folder is gone or JAX cannot read one of its variables."""
    try:
        os.getcwd()
    except OSError:
        raise UsageError("the folder in which this was called is gone: change to another") from None
    try:
        yield
    except ValueError as error:
        if isinstance(error, UsageError) or _JAX_VARIABLE.search(str(error)) is None:
            raise
        raise UsageError(f"JAX cannot be set up: {one_line(error)}") from None
