"""The live table of a sweep's trials."""

from collections.abc import Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Table

from resflax.sweep.folder import SweepFolder
from resflax.sweep.launcher import Standing, State
from resflax.sweep.progress import read_progress

_ROWS = 40
_COLORS = {
    State.DONE: "green",
    State.FAILED: "red",
    State.RUNNING: "cyan",
    State.ELSEWHERE: "cyan",
    State.PRUNED: "yellow",
}


def trials_table(folder: SweepFolder, standings: Iterable[Standing]) -> Table:
    """State, step, error and time left of every trial; of the running ones where they are many."""
    every = list(standings)
    counts = [f"{n} {s.value}" for s in State if (n := sum(x.state is s for x in every))]
    table = Table(title=f"{len(every)} trials: {', '.join(counts)}", title_justify="left")
    table.add_column("trial", overflow="fold")
    table.add_column("state")
    for header in ("step", "error", "time left"):
        table.add_column(header, justify="right", no_wrap=True)
    shown = every if len(every) <= _ROWS else [x for x in every if x.state in _BUSY][:_ROWS]
    for standing in shown:
        trial, state = standing.trial, standing.state
        progress = read_progress(folder.run(trial), trial.experiment)
        running = state in _BUSY
        table.add_row(
            trial.label or trial.hash,
            state.value,
            f"{progress.step:,}" + (f"/{progress.total:,}" if progress.total else ""),
            "" if progress.error is None else f"{progress.error:.2%} {progress.split}",
            clock(progress.seconds_left) if running else "",
            style=_COLORS.get(state),
        )
    return table


_BUSY = (State.RUNNING, State.ELSEWHERE)


def clock(seconds: float | None) -> str:
    """`h:mm:ss`, or nothing if it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class LiveTable:
    """Shows the table on a terminal and keeps it current; elsewhere only lines are printed."""

    def __init__(self, folder: SweepFolder, console: Console) -> None:
        self._folder, self.console = folder, console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "LiveTable":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *reason: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, standings: Iterable[Standing]) -> None:
        """Draws it anew."""
        if self._live is not None:
            self._live.update(trials_table(self._folder, standings), refresh=True)

    def say(self, text: str) -> None:
        """Prints a line, above the table if there is one."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
