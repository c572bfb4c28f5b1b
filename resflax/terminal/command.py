"""Runs a command as a process, which reports a failure in one line and exits with a fixed code.

Nothing here imports JAX, so that help and mistakes are answered at once.
"""

import contextlib
import errno
import logging
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

from resflax.errors import Interrupted, TrainingError, UsageError
from resflax.files import is_of_system, reason_of
from resflax.terminal.interruption import SIGNALS, signals_to_answer
from resflax.terminal.output import guard_output, lost_output
from resflax.terminal.program import as_called
from resflax.terminal.surroundings import let_streams_print_everything, readable_surroundings
from resflax.text import path_text

_OPEN_FILES = 2**16
_LONGEST = 1500  # characters of a message; only messages that quote a typed value can be longer


def run(command: Callable[[Sequence[str]], None]) -> NoReturn:
    """Runs a command with this process's arguments and exits with its code.

    The codes are 0 if the command is done; 1 for a failure while running; 2 for bad usage,
    experiment or data; 128 + the number of a signal that ended it (`interruption.SIGNALS`); and 141
    if the reader of its output went away, unless the command's result is in files. Failures print
    one line on stderr, `error: ...`.
    """
    guard_output()
    let_streams_print_everything()
    # For Ctrl-C, Python raises KeyboardInterrupt.
    answer_signals([number for number in signals_to_answer() if number != signal.SIGINT])
    _set_up_libraries()
    code, text = end_of(lambda: command(sys.argv[1:]))
    _exit(code, text)


def end_of(command: Callable[[], None]) -> tuple[int, str]:
    """Calls a command, and returns its exit code and the line that it ends with, often none.

    An exception that nobody foresaw is raised, and so is `SystemExit` with a code that is not 0.
    """
    try:
        try:
            with readable_surroundings():
                command()
        except SystemExit as end:  # `--help` exits by itself
            if end.code:
                raise
        lost = lost_output()
    except UsageError as error:
        return 2, f"error: {error}"
    except TrainingError as error:
        return 1, f"error: {error}"
    except Interrupted as interruption:
        return 128 + interruption.signal, str(interruption)
    except OSError as error:
        if not is_of_system(error):
            raise
        named = "" if error.filename is None else f"{path_text(error.filename)}: "
        return 1, f"error: {named}{reason_of(error)}"
    except KeyboardInterrupt:
        return 128 + signal.SIGINT, ""
    if lost is None:
        return 0, ""
    if lost.errno == errno.EPIPE:  # the reader of our output has seen enough
        return 128 + signal.SIGPIPE, ""
    return 1, f"error: the output could not be written: {reason_of(lost)}"


def answer_signals(numbers: Sequence[int]) -> None:
    """Lets each of these signals end a command by `Interrupted`, Ctrl-C by KeyboardInterrupt."""
    for number in numbers:
        answer = signal.default_int_handler if number == signal.SIGINT else _terminate
        signal.signal(number, answer)


def _set_up_libraries() -> None:
    """Sets up other libraries for the whole process, which belongs to the command."""
    _allow_many_files()
    # Orbax warns about things that we ask it to do.
    logging.getLogger("absl").setLevel(logging.ERROR)
    # Matplotlib warns that it has no home folder for its cache.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Networks compute in the `precision` that an experiment declares.
    if "JAX_ENABLE_X64" in os.environ:
        os.environ["JAX_ENABLE_X64"] = "0"
    # Our own warnings are lines for the user, without the name of a logger.
    logger = logging.getLogger("resflax")
    logger.addHandler(logging.StreamHandler())
    logger.propagate = False
    # Pictures are decoded in as many threads as are useful, so OpenCV must not start its own.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    # `data.pictures` has a limit of its own, above the one that Pillow warns of.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")


def _allow_many_files() -> None:
    """Raises the limit of open files, up to 65,536, as far as the system allows this process.

    A streamed set may have more files than the usual limit of 1,024. A higher limit would only slow
    down programs that go through all numbers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    for other in SIGNALS:
        if other != signal.SIGINT:
            signal.signal(other, signal.SIG_IGN)  # nothing may interrupt the cleaning up
    raise Interrupted(number)


def _exit(code: int, text: str) -> NoReturn:
    # The exit code is decided. Python drops its signal handlers while it shuts down, so from here
    # on a signal would kill the process and change the code.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    say_end(text)
    sys.exit(code)


def say_end(text: str) -> None:
    """Prints the line that a command ends with on stderr, unless it is empty."""
    if text:
        print(message_line(as_called(text)), file=sys.stderr)


def message_line(text: str) -> str:
    """A message on one line; if it is too long, its middle is cut out."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:1000]} ... {text[-400:]}"
