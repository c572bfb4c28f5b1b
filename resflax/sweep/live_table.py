"""The live table of a sweep's trials."""

from collections.abc import Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from resflax.sweep.standings import Standing, TrialState, count_states
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trial_progress import read_trial_progress
from resflax.text import duration

_MOST_ROWS = 40
_COLORS = {
    TrialState.DONE: "green",
    TrialState.FAILED: "red",
    TrialState.RUNNING: "cyan",
    TrialState.ELSEWHERE: "cyan",
    TrialState.PRUNED: "yellow",
}
_ACTIVE = (TrialState.RUNNING, TrialState.ELSEWHERE)


def standings_table(folder: SweepFolder, standings: Iterable[Standing]) -> Table:
    """A table of the state, step, error and remaining time of every trial.

    If there are too many trials for a screen, it shows only those that are running.
    """
    standings = list(standings)
    title = f"{len(standings)} trials: {count_states(standings)}"
    table = Table(title=title, title_justify="left")
    table.add_column("trial", overflow="fold")
    table.add_column("state")
    for header in ("step", "error", "time left"):
        table.add_column(header, justify="right", no_wrap=True)
    if len(standings) > _MOST_ROWS:
        standings = [standing for standing in standings if standing.state in _ACTIVE][:_MOST_ROWS]
    for standing in standings:
        trial, state = standing.trial, standing.state
        progress = read_trial_progress(folder.run(trial), trial.experiment)
        seconds_left = progress.seconds_left if state in _ACTIVE else None
        table.add_row(
            Text(trial.label or trial.hash),  # brackets in a name are no markup
            state.value,
            f"{progress.step:,}" + (f"/{progress.total:,}" if progress.total else ""),
            "" if progress.error is None else f"{progress.error:.2%} {progress.split}",
            "" if seconds_left is None else duration(seconds_left),
            style=_COLORS.get(state),
        )
    return table


class LiveTable:
    """A table on the terminal that is kept up to date. Without a terminal, it only prints lines."""

    def __init__(self, folder: SweepFolder, console: Console) -> None:
        self._folder, self.console = folder, console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> "LiveTable":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, standings: Iterable[Standing]) -> None:
        """Draws the table again."""
        if self._live is not None:
            self._live.update(standings_table(self._folder, standings), refresh=True)

    def say(self, text: str) -> None:
        """Prints a line, above the table if there is one."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
