"""Wall-clock time: of a run, and of the steps since the last line of its log."""

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Started when made."""

    before: float = 0.0
    """Seconds of earlier sessions."""
    steps: int = 0
    """Steps timed since the last line."""
    _started: float = field(default_factory=time.perf_counter)
    _busy: float = 0.0
    _resumed: float | None = None

    @property
    def total(self) -> float:
        """Seconds of the run so far, all sessions together."""
        return self.before + time.perf_counter() - self._started

    def resume(self) -> None:
        """Steps begin."""
        self._resumed = time.perf_counter()

    def pause(self) -> None:
        """Steps end; evaluations and checkpoints are not timed."""
        self._busy = self._timed()
        self._resumed = None

    def forget(self) -> None:
        """Begins to time anew."""
        self.steps, self._busy = 0, 0.0

    def rate(self) -> float | None:
        """Steps per second; None if none were timed yet."""
        busy = self._timed()
        return self.steps / busy if self.steps and busy else None

    def _timed(self) -> float:
        running = 0.0 if self._resumed is None else time.perf_counter() - self._resumed
        return self._busy + running
