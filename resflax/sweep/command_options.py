"""Rules for the options of `resflax sweep`."""

from collections.abc import Sequence
from typing import Literal

from resflax.declarations.data import Streamed
from resflax.declarations.sweeps import Grid, Sweep
from resflax.errors import UsageError
from resflax.experiment import Experiment

ExecutorName = Literal["local", "slurm"]
"""Where trials run: as processes on this machine, or as jobs of a SLURM cluster."""


def with_group_size(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments, with a 0 inserted after each `--vectorize` without a number."""
    completed: list[str] = []
    for argument, next_argument in zip(arguments, [*arguments[1:], ""], strict=True):
        completed.append(argument)
        if argument == "--vectorize" and not next_argument.lstrip("-").isdecimal():
            completed.append("0")
    return completed


def check_options(
    jobs: int, vectorize: int, executor: ExecutorName, experiment: Experiment, sweep: Sweep
) -> None:
    """Raises `UsageError` for numbers that are too small and options that exclude each other."""
    if jobs < 1:
        raise UsageError(f"--jobs is {jobs}; it must be at least 1")
    if vectorize < 0:
        raise UsageError(f"--vectorize is {vectorize}; it must be at least 1, or have no number")
    if vectorize == 1:
        return
    if not isinstance(sweep, Grid):
        raise UsageError(
            "--vectorize needs a Grid, because a search proposes each trial from the results of "
            "earlier ones and stops single trials; leave the option out"
        )
    if isinstance(experiment.data, Streamed):
        raise UsageError("--vectorize needs data that is kept in memory; leave the option out")
    if executor == "slurm":
        raise UsageError(
            "--vectorize needs local processes, because a SLURM job has one trial; leave one of "
            "the two options out, or run `resflax sweep --vectorize` itself as a job"
        )
