"""Silences Orbax: what its threads print when a save fails, and its warnings while it reads."""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

_LOGGERS = ("absl", "asyncio")  # Orbax logs to the first, and its event loops to the second
_PATIENCE = 5.0  # seconds to wait for each thread of a failed save
_LATE_COMPLAINT = "Event loop is closed"  # from TensorStore's own threads, which nobody can join


@contextlib.contextmanager
def quiet_reading() -> Iterator[None]:
    """Drops Orbax's warnings, which are about things that it is asked to do; errors are logged."""

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    logger = logging.getLogger("absl")
    logger.addFilter(is_error)
    try:
        yield
    finally:
        logger.removeFilter(is_error)


@contextlib.contextmanager
def quiet_threads() -> Iterator[None]:
    """Drops what the threads of a save print and log about their failures.

    Hooks and loggers are restored when the context ends. After a failure, Python threads that are
    still running are first waited for, each for up to a few seconds. From then on, only the message
    `_LATE_COMPLAINT` of threads that cannot be waited for is dropped.
    """
    before = set(threading.enumerate())
    thread_hook, unraisable_hook = threading.excepthook, sys.unraisablehook

    def drop_of_new_threads(arguments: Any) -> None:
        if arguments.thread in before:
            thread_hook(arguments)

    def drop_late_complaint(unraisable: Any) -> None:
        if str(unraisable.exc_value) != _LATE_COMPLAINT:
            unraisable_hook(unraisable)

    def drop_all(record: logging.LogRecord) -> bool:
        return False

    threading.excepthook = drop_of_new_threads
    sys.unraisablehook = lambda unraisable: None
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(drop_all)
    hook_afterwards = unraisable_hook
    try:
        yield
    except BaseException:
        hook_afterwards = drop_late_complaint
        for thread in set(threading.enumerate()) - before:
            thread.join(_PATIENCE)
        raise
    finally:
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(drop_all)
        threading.excepthook, sys.unraisablehook = thread_hook, hook_afterwards
