"""Background work: checkpoints are written while the devices go on training."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from resflax.devices import hosts

# There is one thread for all runs, because a save silences some output of the whole process.
_WRITER = ThreadPoolExecutor(1, "checkpoints")


class BackgroundWriter:
    """Does a run's work in the background, one piece at a time.

    As a context manager, it waits for the work on exit, but does not raise the work's errors.
    """

    def __init__(self) -> None:
        self._running: Future[None] | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Waits for earlier work, as `finish` does, and begins new work.

        On several hosts the work is done at once, because it communicates with the other hosts.
        """
        self.finish()
        if hosts.several():
            work()
        else:
            self._running = _WRITER.submit(work)

    def check(self) -> None:
        """Raises the error of the work, if the work has ended with one. Does not wait."""
        if self._running is not None and self._running.done():
            self.finish()

    def finish(self) -> None:
        """Waits for the work to end, and raises its error if it failed."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, *reason: object) -> None:
        wait([self._running] if self._running is not None else [])
