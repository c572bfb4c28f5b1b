"""The wall-clock time of a run, and of the steps since the last line of its log."""

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Measures the time of a run from when the clock is made, and separately that of its steps."""

    before: float = 0.0
    """Seconds of earlier sessions."""
    steps: int = 0
    """Steps that were timed since the last line of the log."""
    _started: float = field(default_factory=time.perf_counter)
    _busy: float = 0.0
    _resumed: float | None = None

    @property
    def total(self) -> float:
        """Seconds of the run so far, over all sessions."""
        return self.before + time.perf_counter() - self._started

    def resume(self) -> None:
        """Starts to time steps."""
        self._resumed = time.perf_counter()

    def pause(self) -> None:
        """Stops timing steps, so that evaluations and checkpoints do not count."""
        self._busy = self._timed()
        self._resumed = None

    def reset(self) -> None:
        """Sets the number and the time of the steps to zero, for the next line of the log."""
        self.steps, self._busy = 0, 0.0

    def rate(self) -> float | None:
        """Steps per second since the last line of the log; None if no step was timed yet."""
        busy = self._timed()
        return self.steps / busy if self.steps and busy else None

    def _timed(self) -> float:
        running = 0.0 if self._resumed is None else time.perf_counter() - self._resumed
        return self._busy + running
