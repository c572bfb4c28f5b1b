"""The display of a program at work: progress bars with speed and time left, and lines of text."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from resflax.terminal.notebook import NotebookOutput

T = TypeVar("T")


class Display:
    """The progress of a program on a console.

    A notebook shows the bars and the newest lines in one output of its cell. Where there is neither
    a terminal nor a notebook, all lines are printed, and no bars.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        in_notebook = console.is_jupyter and not console.quiet
        self._notebook = NotebookOutput(self._progress) if in_notebook else None

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._progress.stop()
        self._bars_changed(now=True)

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        if self._notebook is not None:
            self._notebook.say(text)
        else:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def bar(self, description: str, total: int, done: int = 0) -> "Bar":
        """A bar that is shown while a `with` statement runs."""
        return Bar(self._progress, description, total, done, self._bars_changed)

    def items(self, items: Sequence[T], description: str) -> Iterable[T]:
        """Yields the items of a sequence while a bar shows how many are done."""
        with self.bar(description, len(items)) as bar:
            for done, item in enumerate(items, start=1):
                yield item
                bar.set(done)

    def _bars_changed(self, *, now: bool) -> None:
        """Shows changes of the bars in a notebook; on a terminal, rich does this by itself."""
        if self._notebook is not None:
            self._notebook.refresh(now=now)


class Bar:
    """One bar of a display."""

    def __init__(
        self,
        progress: Progress,
        description: str,
        total: int,
        done: int,
        changed: Callable[..., None],
    ) -> None:
        self._progress, self._description = progress, description
        self._total, self._done = total, done
        self._changed = changed
        self._task: TaskID

    def __enter__(self) -> "Bar":
        self._task = self._progress.add_task(
            self._description, total=self._total, completed=self._done, note=""
        )
        self._changed(now=True)  # what follows may take long
        return self

    def __exit__(self, *reason: object) -> None:
        self._progress.remove_task(self._task)
        self._changed(now=False)

    def set(self, done: int, **fields: Any) -> None:
        """Sets how much of the bar is done; the field `note` is a text that is shown after it."""
        self._progress.update(self._task, completed=done, **fields)
        self._changed(now=False)
