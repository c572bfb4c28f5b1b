"""Work done beside the steps: checkpoints are written while the devices go on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from resflax.training import hosts

_WRITER = ThreadPoolExecutor(1, "checkpoints")  # one for all runs: a save speaks for the process


class Background:
    """One piece of work of a run at a time. Leaving it as a context waits for the end of that."""

    def __init__(self) -> None:
        self._running: Future[None] | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Begins it, after `finish`. Of several hosts, which ask each other in it, does it now."""
        self.finish()
        if hosts.several():
            work()
        else:
            self._running = _WRITER.submit(work)

    def check(self) -> None:
        """Raises what the work raised, if it has ended."""
        if self._running is not None and self._running.done():
            self.finish()

    def finish(self) -> None:
        """Waits for the end of the work, and raises what that raised."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *reason: object) -> None:
        wait([self._running] if self._running is not None else [])
