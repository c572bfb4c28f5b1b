"""Saving and reading keep Orbax quiet, and everything else is as before when it ends."""

import logging
import sys
import threading
from types import SimpleNamespace

import pytest

from resflax.runs.quiet import quiet_reading, quiet_threads


def hooks():
    filters = [list(logging.getLogger(name).filters) for name in ("absl", "asyncio")]
    return threading.excepthook, sys.unraisablehook, logging.root.manager.disable, filters


def test_a_save_that_succeeds_changes_nothing():
    before = hooks()
    with quiet_threads():
        assert hooks() != before
    assert hooks() == before


def test_a_save_that_fails_gives_everything_back(monkeypatch, caplog):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: told.append(arguments))
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable))
    before = hooks()

    def fail():
        raise OSError("the disk is full")

    def save():
        with quiet_threads():
            threading.Thread(target=fail).start()
            logging.getLogger("absl").error("the disk is full")
            fail()

    with pytest.raises(OSError, match="full"):
        save()
    assert told == []
    assert caplog.messages == []
    after = hooks()
    assert (after[0], after[2:]) == (before[0], before[2:])
    sys.unraisablehook(SimpleNamespace(exc_value=RuntimeError("Event loop is closed")))
    assert told == []  # only this one, which comes late
    another = SimpleNamespace(exc_value=RuntimeError("another"))
    sys.unraisablehook(another)
    logging.getLogger("absl").error("another")
    assert told == [another]
    assert caplog.messages == ["another"]


def test_reading_drops_warnings_and_keeps_errors(caplog):
    logger = logging.getLogger("absl")
    before = hooks()
    with quiet_reading():
        logger.warning("read_only=True")
        logger.error("no such file")
    logger.warning("another")
    assert hooks() == before
    assert [record.message for record in caplog.records] == ["no such file", "another"]
