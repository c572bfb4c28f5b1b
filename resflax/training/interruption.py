"""Signals that ask for an end, as a question the loop asks when it is ready for the answer."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Ctrl-C, the end, SLURM's requeue


class Interruption:
    """While entered, notes the first of `SIGNALS` instead of ending the program.

    A second Ctrl-C ends it at once. Outside the main thread, where Python allows no handlers,
    nothing is noted.
    """

    def __init__(self, agree: Callable[[int], int] = lambda number: number) -> None:
        """`agree` makes one number of those of several hosts; 0 is none."""
        self._agree = agree
        self.signal: int | None = None
        """The one that came, known once it was asked whether one did."""
        self._noted = 0
        self._before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        """Whether a signal has come, to any of the hosts. All ask at the same places."""
        self.signal = self.signal or self._agree(self._noted) or None
        return self.signal is not None

    def __enter__(self) -> "Interruption":
        for number in SIGNALS:
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
