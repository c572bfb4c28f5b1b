"""Prints the result of a dry run: the trials of a sweep and their costs."""

from rich.console import Console

from resflax.declarations.sweeps import Grid, Sweep
from resflax.experiment import Experiment
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
        return
    from resflax.sweep.cost import cost_table, estimate_costs  # imports JAX

    costs = estimate_costs(folder, expand_grid(experiment, sweep))
    console.print(cost_table(folder, costs))
