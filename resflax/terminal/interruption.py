"""Signals that ask a program to end, noted until a loop is ready to answer them."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (
    signal.SIGHUP,  # the terminal was closed
    signal.SIGINT,  # Ctrl-C
    signal.SIGUSR1,  # sent by SLURM before the end of a job, if the job asks for it
    signal.SIGUSR2,  # the same; submitit's jobs ask for this one
    signal.SIGTERM,
    signal.SIGXCPU,  # the soft limit of processor time was reached
)


def signals_to_answer() -> list[signal.Signals]:
    """The signals of `SIGNALS`, without those that the process was told to ignore.

    nohup lets a process ignore SIGHUP. Ctrl-C is always answered, because shells that run a script
    let every command in the background ignore it, though nobody asked for that.
    """
    return [
        number
        for number in SIGNALS
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
    ]


class Interruption:
    """As a context manager, notes a signal of `SIGNALS` instead of letting it end the program.

    A Ctrl-C after a noted signal ends the program at once. Outside the main thread Python allows no
    signal handlers, so nothing is noted.
    """

    def __init__(self, agree: Callable[[int], int] = lambda number: number) -> None:
        """`agree` turns each host's signal number into one for all hosts; 0 means no signal."""
        self._agree = agree
        self.signal: int | None = None
        """The signal that came. It is set when the object is tested for truth."""
        self._noted = 0
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        """Whether any host has received a signal. All hosts must test at the same points."""
        self.signal = self.signal or self._agree(self._noted) or None
        return self.signal is not None

    def __enter__(self) -> "Interruption":
        for number in signals_to_answer():
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:
                break  # not the main thread
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._noted = number
