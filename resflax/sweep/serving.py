"""A worker: `python -m resflax.sweep.serving SWEEP SOCKET` trains one trial after another.

The launcher starts it, and sends a request for each trial through the socket: its hash, the file
that it prints to, and its lock. The worker answers with the trial's exit code. For everybody else
a trial is as if it had a process of its own: it prints to its own log, its lock ends with it, it is
saved at a signal, and it computes the same numbers. A worker that may have kept something of a
trial says that it is spent, and ends.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resflax.errors import Interrupted
from resflax.sweep.channel import Channel
from resflax.sweep.sweep_folder import SweepFolder
from resflax.terminal.command import answer_signals, end_of, run, say_end
from resflax.terminal.interruption import signals_to_answer

if TYPE_CHECKING:
    from resflax.sweep.training import Trainer


def main(arguments: Sequence[str]) -> None:
    """Trains the trials that the launcher asks for, until it closes its end of the socket.

    The arguments are the sweep folder and the descriptor of the socket.
    """
    from resflax.sweep.training import Trainer  # imports JAX

    path, descriptor = arguments
    channel = Channel(socket.socket(fileno=int(descriptor)))
    trainer = Trainer(SweepFolder(Path(path)))
    answered = signals_to_answer()
    _ignore(answered)
    while (request := channel.receive(wait=True)) is not None:
        if "trial" not in request:  # it is about stopping an earlier trial
            continue
        code, spent = _answer(request, channel, trainer, answered)
        with contextlib.suppress(OSError):  # the launcher has gone
            channel.send({"code": code, "spent": spent})
        if spent:
            return


def _ignore(answered: Sequence[int]) -> None:
    """Ignores signals: one that comes between two trials is meant for neither."""
    for number in answered:
        signal.signal(number, lambda *_: None)


def _answer(
    request: dict[str, Any], channel: Channel, trainer: "Trainer", answered: Sequence[int]
) -> tuple[int, bool]:
    """Trains a trial; returns its exit code, and whether this process must end."""
    log, lock = channel.take_descriptors(2)
    for output in (1, 2):
        os.dup2(log, output)
    os.close(log)
    sys.orig_argv = request["command"]  # the run's folder tells how to repeat the run

    def train() -> None:
        try:
            answer_signals(answered)
            later = channel.receive(wait=False)
            if later is not None and later.get("stop") == request["number"]:
                raise Interrupted(signal.SIGTERM)
            trainer.train(request["trial"])
        finally:
            _ignore(answered)

    with warnings.catch_warnings():  # each trial warns anew, and keeps its filters to itself
        code, foreseen = _end_of(train)
    # Only SIGTERM is the launcher's. The soft limit of processor time is this process's for good.
    spent = not foreseen or code not in (0, 1, 2, 128 + signal.SIGTERM)
    spent = trainer.clean_up() or spent
    _flush()
    os.close(lock)
    return code, spent


def _end_of(train: Callable[[], None]) -> tuple[int, bool]:
    """Calls a function; returns its exit code, and False if it raised what nobody foresaw."""
    try:
        code, text = end_of(train)
    except SystemExit as end:  # a class of the user's own called sys.exit
        return (end.code if isinstance(end.code, int) else 1), False
    except BaseException:
        traceback.print_exc()
        return 1, False
    say_end(text)
    return code, True


def _flush() -> None:
    """Writes out what Python and C libraries hold of this trial's output."""
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)


if __name__ == "__main__":
    run(main)
