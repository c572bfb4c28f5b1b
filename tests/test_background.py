"""Work beside the steps: one piece at a time, none of it forgotten, no failure lost."""

import threading

import pytest

from resflax import TrainingError
from resflax.runs.background import BackgroundWriter


@pytest.fixture
def gate():
    """Keeps work from ending until it is set."""
    event = threading.Event()
    yield event
    event.set()


def failing(gate):
    def work():
        gate.wait(60)
        raise TrainingError("the disk is full")

    return work


def test_what_follows_goes_on_until_the_next_piece(gate):
    done = []
    background = BackgroundWriter()
    background.begin(lambda: done.append(gate.wait(60)))
    assert done == []  # and this thread is here
    gate.set()
    background.begin(lambda: done.append("second"))
    assert done[0] is True
    background.finish()
    assert done == [True, "second"]


def test_a_failure_is_raised_once_where_it_is_asked_for(gate):
    background = BackgroundWriter()
    background.begin(failing(gate))
    background.check()  # it has not failed yet
    gate.set()
    with pytest.raises(TrainingError, match="the disk is full"):
        background.finish()
    background.check()
    background.finish()


def test_a_failure_is_raised_before_another_piece_begins(gate):
    done = []
    background = BackgroundWriter()
    background.begin(failing(gate))
    gate.set()
    with pytest.raises(TrainingError, match="the disk is full"):
        background.begin(lambda: done.append(1))
    assert done == []


def test_leaving_with_an_error_waits_and_keeps_that_error(gate):
    ended = []
    with pytest.raises(ZeroDivisionError), BackgroundWriter() as background:  # noqa: PT012
        threading.Timer(0.2, gate.set).start()
        background.begin(lambda: ended.append(gate.wait(60)))
        raise ZeroDivisionError
    assert ended == [True]


def test_pieces_of_several_runs_do_not_overlap(gate):
    order = []
    one, other = BackgroundWriter(), BackgroundWriter()
    one.begin(lambda: order.append(gate.wait(60)))
    other.begin(lambda: order.append("other"))
    gate.set()
    other.finish()
    one.finish()
    assert order == [True, "other"]
