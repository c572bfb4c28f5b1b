"""Output that never fails: what cannot be written is dropped.

The reader of a pipe may go, a terminal may be closed, a disk may be full. None of these may end a
training.
"""

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


class Output(io.FileIO):
    """A file that never fails to be written; it notes an error instead."""

    lost: OSError | None = None
    """The last error, since which something is missing in the file."""

    def write(self, data: object, /) -> int:
        """Writes all of the bytes, or drops what cannot be written."""
        left = memoryview(data).cast("B")  # type: ignore[arg-type]
        size = len(left)
        try:
            while left:
                written = super().write(left)
                if written is None:  # another program has made a shared pipe non-blocking
                    select.select([], [self], [])
                else:
                    left = left[written:]
        except OSError as error:
            self.lost = error
        return size


class ForgivingText:
    """Writes to a stream of the user's program as long as that is possible, and ignores errors.

    It has what a console needs of a file.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        """The encoding of the other stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether the other stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The other stream's file descriptor."""
        return self._stream.fileno()

    def write(self, text: str, /) -> int:
        """Writes a text to the other stream."""
        with self._forgiving():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the other stream."""
        with self._forgiving():
            self._stream.flush()

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # Otherwise Python would try again when it exits, and complain.
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
        except OSError:
            pass


def guard_output() -> None:
    """Makes `sys.stdout` and `sys.stderr` an `Output` each, for a process that runs a command.

    A descriptor that was closed when the process started is opened, so that it cannot be given to
    another file, into which libraries would then print. Writing to it goes on to fail.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # gets the lowest descriptor that is free
            os.set_inheritable(descriptor, True)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # and not what a test put there
            setattr(sys, name, _guarded(stream, descriptor))


def _guarded(stream: TextIO | None, descriptor: int) -> TextIO:
    """A stream like another one (None if that was closed) that drops what cannot be written."""
    if not isinstance(stream, io.TextIOWrapper):
        # Another file may have its descriptor by now. Writing to this one fails.
        closed = Output(os.open(os.devnull, os.O_RDONLY), "w")
        return io.TextIOWrapper(closed, errors="backslashreplace", write_through=True)
    with contextlib.suppress(OSError):
        stream.flush()
    output = Output(descriptor, "w", closefd=False)
    unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
    return io.TextIOWrapper(
        output if unbuffered else io.BufferedWriter(output),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def log_file(path: Path) -> TextIO:
    """Opens a file to append lines to, as an `Output`."""
    output = io.BufferedWriter(Output(path, "a"))
    return io.TextIOWrapper(
        output, encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


def lost_output() -> OSError | None:
    """Flushes `sys.stdout`; the error because of which some of it was lost, if any was."""
    sys.stdout.flush()
    output = _output()
    return None if output is None else output.lost


def accept_lost_output() -> None:
    """Forgets that output was lost so far, for a command whose result is not what it prints."""
    sys.stdout.flush()
    output = _output()
    if output is not None:
        output.lost = None


def _output() -> Output | None:
    buffer = getattr(sys.stdout, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw if isinstance(raw, Output) else None
