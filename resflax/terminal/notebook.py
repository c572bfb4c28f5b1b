"""One output of a notebook's cell that changes in place, where a terminal would scroll."""

import time
from collections import deque
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.jupyter import JupyterMixin
from rich.progress import Progress
from rich.text import Text

LINES = 12
"""How many of the newest lines of text the output shows above the bars."""
_SECONDS = 0.25  # the least time between two changes, so that the browser keeps up


class NotebookOutput(JupyterMixin):
    """The newest lines of text, and below them the bars that are running."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lines: deque[str] = deque(maxlen=LINES)
        self._handle: Any = None
        """IPython's handle of the output; None until something is shown."""
        self._shown_at = 0.0

    def say(self, text: str) -> None:
        """Adds a line. The oldest line goes if there are too many."""
        self._lines.append(text)
        self.refresh()

    def refresh(self, *, now: bool = False) -> None:
        """Shows lines and bars as they are, unless that was done a moment ago and `now` is off."""
        if not self._lines and not self._progress.tasks and self._handle is None:
            return
        clock = time.monotonic()
        if not now and clock - self._shown_at < _SECONDS:
            return
        self._shown_at = clock
        if self._handle is None:
            from IPython.display import display  # every notebook has it

            self._handle = display(self, display_id=True)
        else:
            self._handle.update(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._lines:
            yield Text(line, no_wrap=True, overflow="ignore")
        if self._progress.tasks:
            yield self._progress
