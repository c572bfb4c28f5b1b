"""Prints the result of a dry run: the trials of a sweep and their costs."""

from collections.abc import Iterable

from rich.console import Console

from resflax.declarations.sweeps import Grid, Sweep
from resflax.experiment import Experiment
from resflax.sweep.notes import sweep_notes
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import expand_grid


def print_plan(folder: SweepFolder, experiment: Experiment, sweep: Sweep, console: Console) -> None:
    """Prints the trials of a grid with their costs, or the ranges of a search.

    Raises `UsageError` if the experiment refuses a field or value of the grid.
    """
    if not isinstance(sweep, Grid):
        console.print(
            f"a search of {sweep.trials} trials; each is proposed from the results of earlier ones:"
        )
        for name, values in sweep.fields.items():
            console.print(f"  {name}: {values}", highlight=False, markup=False)
        _print_notes(sweep_notes(experiment, sweep, ()), console)
        return
    from resflax.sweep.cost import cost_table, estimate_costs  # imports JAX

    trials = expand_grid(experiment, sweep)
    costs = estimate_costs(folder, trials)
    console.print(cost_table(folder, costs))
    _print_notes(sweep_notes(experiment, sweep, trials), console)


def _print_notes(notes: Iterable[str], console: Console) -> None:
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False, markup=False)
