"""Tells a damaged example from a fault of the system that reads it.

A damaged example is passed over. If a sound one were passed over because the disk or the network
fails, or because too many files are open, the training data would change without need. So such a
fault ends the reading, after a few more tries if it may pass.
"""

import errno
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import cv2

from resflax.errors import TrainingError
from resflax.text import one_line

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

WAITS = (0.5, 2.0, 8.0)
"""Seconds before the second, third and fourth try to read something."""

SAID_EVERY = 60.0
"""Least number of seconds between two lines that say that something is tried again."""

EncodedOrFault = tuple[bytes, int] | str
"""An encoded picture with its label, or the reason why the example is bad."""

_TO_FILE = (errno.ENOENT, errno.ENOTDIR)
_OF_FILE = (errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Numbers of errors that say that a file is not what it was when it was listed."""

_FULL = (errno.EMFILE, errno.ENFILE)
_LASTING = (
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
)
"""Numbers of errors that do not pass by themselves."""

_BY_TEXT = {os.strerror(number): number for number in errno.errorcode}
_IN_TEXT = re.compile(r"\(\) failed: ([^;]+)")

_saying = threading.Lock()
_said_at = -1e9


class SystemFault(TrainingError):  # noqa: N818
    """Something cannot be read although it may be sound. The text is one line."""

    def __init__(self, what: str, number: int) -> None:
        """`what` cannot be read, and `number` is the error's number (errno)."""
        super().__init__(f"{what} cannot be read: {os.strerror(number)}; {_advice(number)}")
        self.what, self.number = what, number

    @property
    def may_pass(self) -> bool:
        """Whether another try may succeed."""
        return self.number not in _LASTING


class Readable(Protocol[T_co]):
    """Examples that can be read one by one."""

    def __getitem__(self, index: int) -> T_co:
        """An encoded picture and its label or labels."""

    def name(self, index: int) -> str:
        """The name of an example in messages."""


def say_nothing(text: str) -> None:
    """Shows no text."""


def read_example(
    examples: Readable[T], index: int, say: Callable[[str], None] = say_nothing
) -> T | str:
    """Reads an example, or says why it is bad.

    Raises `SystemFault` as `patiently` does. `say` shows a line if something is tried again.
    """
    try:
        return patiently(lambda: examples[index], lambda: examples.name(index), say)
    except SystemFault:
        raise
    except Exception as error:  # a damaged file may raise any error
        return one_line(error)  # the error itself would keep its frames alive


def patiently(
    read: Callable[[], T], name: Callable[[], str], say: Callable[[str], None] = say_nothing
) -> T:
    """Returns what `read` returns; calls it again after a fault that may pass.

    Args:
      read: reads something, and may raise any error.
      name: names what is read.
      say: shows a line of text if something is tried again, but only one a minute, because many
        threads may wait for the same disk.

    Raises:
      SystemFault: if the system cannot read it, also after waiting.
      Exception: whatever `read` raises if the system is not to blame.
    """
    tries = iter(WAITS)
    while True:
        try:
            return read()
        except Exception as error:
            fault = system_fault(error, name())
            if fault is None:
                raise
        wait = next(tries, None) if fault.may_pass else None
        if wait is None:
            raise fault
        _say_waiting(fault, say)
        time.sleep(wait)


def reason_of_damage(error: Exception, name: str) -> str:
    """Why an example cannot be used, in one line. Raises `SystemFault` if it is not to blame."""
    fault = system_fault(error, name)
    if fault is not None:
        raise fault from None
    return one_line(error)


def system_fault(error: BaseException, name: str) -> SystemFault | None:
    """The fault of the system that caused an error, or None if what was read is damaged.

    Libraries turn errors of the system into other types. Then the first error is still the context
    of the last one, or its text is in the message.

    Args:
      error: what was raised while something was read or decoded.
      name: what was read; the error's own file name is preferred.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, SystemFault):
            return seen
        number = _number(seen)
        if number is not None and not _is_of_file(seen, number):
            return SystemFault(_file(seen) or name, number)
        seen = seen.__cause__ or seen.__context__
    return None


def number_in_text(text: str) -> int | None:
    """The number of the system's error in a message of the library Riegeli; None if it has none.

    Such a message begins like `open() failed: Too many open files; opening FILE`.
    """
    found = _IN_TEXT.search(text)
    return None if found is None else _BY_TEXT.get(found[1].strip())


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno  # None for errors of Pillow, which has no other type for damage
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
        return errno.ENOMEM
    return None


def _file(error: BaseException) -> str | None:
    """The path of the file that an error names; None if it names none."""
    file = error.filename if isinstance(error, OSError) else None
    return None if file is None or isinstance(file, int) else os.fsdecode(file)


def _is_of_file(error: BaseException, number: int) -> bool:
    """Whether the error concerns this one file: it is gone, but its folder is still there."""
    if number in _TO_FILE:
        file = _file(error)
        return file is None or os.path.isdir(os.path.dirname(file) or ".")
    return number in _OF_FILE


def _say_waiting(fault: SystemFault, say: Callable[[str], None]) -> None:
    global _said_at
    with _saying:
        now = time.monotonic()
        if now - _said_at < SAID_EVERY:
            return
        _said_at = now
    text = f"{fault.what} cannot be read: {os.strerror(fault.number)}"
    say(f"{text}; trying again for {sum(WAITS):g} seconds")


def _advice(number: int) -> str:
    """Says what a user can do about an error of the system."""
    if number == errno.EMFILE:
        return "raise the number of files that a process may have open (ulimit -n)"
    if number == errno.ENFILE:
        return "this machine has too many files open; end other programs"
    if number == errno.ENOMEM:
        return "this machine is out of memory; end other programs or reduce batch_size"
    if number in (errno.EACCES, errno.EPERM):
        return "give this user the permission to read it"
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "make room on the disk"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "bring it back, or mount its disk again"
    return "check its disk or its network file system"
