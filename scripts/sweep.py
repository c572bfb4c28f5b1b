"""Runs the trials of an experiment's sweep that are not done yet.

usage: sweep.py EXPERIMENT [--sweep-dir DIR] [--jobs N] [--executor local|slurm] [--dry-run]
                [--vectorize [N]] [--FIELD VALUE ...]

  EXPERIMENT          a Python file that declares `experiment = Experiment(...)` and
                      `sweep = Grid(...)` or `sweep = Search(...)`
  --sweep-dir DIR     where the sweep is kept (default: sweeps/NAME-HASH)
  --jobs N            trials at a time; on several GPUs each trial has one (default: 1, with all
                      devices)
  --executor slurm    jobs of a SLURM cluster; --slurm.minutes 60 --slurm.gpus 1 ...
  --vectorize [N]     trials of one network that differ only in seed, learning rate, weight decay or
                      momentum train together in one step, at most N of them (default: all that
                      can); --jobs then counts such groups
  --dry-run           show the trials and what they cost, and run nothing
  --FIELD VALUE       replaces a field of every trial: --epochs 2

sweep.py EXPERIMENT --help lists every field with the value it has in that file.

A trial is a run folder named by the hash of its experiment: one that is finished is not run
again, one that was cut off is continued, and a changed sweep adds what is missing. A trial that
fails does not stop the others. Ctrl-C and SIGTERM let the trials save first.

exit codes: 0 done; 1 trials failed; 2 bad usage, experiment or data;
            130 and 143 ended by Ctrl-C or SIGTERM, after saving
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from resflax.command_line import (
    ExperimentFile,
    Flag,
    Overridden,
    load_sweep,
    parse_with_experiment,
    refuse_varied,
    run,
)
from resflax.declarations.data import Streamed
from resflax.declarations.sweeps import Grid, Sweep
from resflax.errors import TrainingError, UsageError
from resflax.experiment import Experiment
from resflax.sweep.executors import Executor, Local, visible_gpus
from resflax.sweep.folder import SweepFolder, default_path
from resflax.sweep.launcher import Launcher, State
from resflax.sweep.queues import GridQueue, Queue
from resflax.sweep.search import SearchQueue
from resflax.sweep.slurm import Slurm, SlurmOptions
from resflax.sweep.table import LiveTable
from resflax.sweep.trials import expand


@dataclass(frozen=True)
class Options:
    """Runs the trials of an experiment's sweep that are not done yet."""

    file: ExperimentFile
    """A Python file that declares `experiment = Experiment(...)` and `sweep = Grid(...)`."""

    experiment: Overridden

    sweep_dir: str | None = None
    """Where the sweep is kept. None: sweeps/NAME-HASH."""

    jobs: int = 1
    """Trials at a time. With more than one and several GPUs, each trial has one GPU."""

    executor: Literal["local", "slurm"] = "local"
    """Processes of this machine, or jobs of a SLURM cluster."""

    vectorize: int = 1
    """Trials that train together in one step where they differ only in seed, learning rate, weight
    decay or momentum; 0, or no number: all that can."""

    slurm: SlurmOptions = dataclasses.field(default_factory=SlurmOptions)

    dry_run: Flag = False
    """Show the trials and what they cost, and run nothing."""


def main(arguments: Sequence[str]) -> None:
    """Runs what is missing, and says where each trial stands."""
    options = parse_with_experiment(Options, with_number(arguments), usage=__doc__ or "")
    sweep = load_sweep(Path(options.file))
    refuse_varied(sweep.fields_that_vary, arguments)
    if options.jobs < 1:
        raise UsageError(f"--jobs is {options.jobs}; it must be at least 1")
    refuse_together(options, sweep)
    experiment = options.experiment
    path = Path(options.sweep_dir) if options.sweep_dir else default_path(experiment)
    folder, console = SweepFolder(path), Console()
    if options.dry_run:
        show_costs(folder, experiment, sweep, console)
        return
    queue = make_queue(folder, experiment, sweep, options.vectorize)
    executor = make_executor(folder, queue, sweep, options)
    console.print(f"the sweep is in {path}", soft_wrap=True, highlight=False)
    with LiveTable(folder, console) as table:
        standings = Launcher(folder, queue, executor, table.show, table.say).run()
    ran = sum(standing.ran for standing in standings)
    counts = {s: sum(x.state is s for x in standings) for s in State}
    failed = [standing for standing in standings if standing.state is State.FAILED]
    said = ", ".join(f"{n} {state.value}" for state, n in counts.items() if n)
    console.print(f"{len(standings)} trials: {said}; {ran} of them run now", highlight=False)
    console.print(f"python scripts/report.py {path}", soft_wrap=True, highlight=False)
    if failed:
        which = "; ".join(f"{x.trial.hash} ({x.trial.label}): {x.why}" for x in failed)
        raise TrainingError(f"{len(failed)} of {len(standings)} trials failed: {which}")


def with_number(arguments: Sequence[str]) -> list[str]:
    """The arguments with a 0 behind a `--vectorize` that has no number."""
    found: list[str] = []
    for argument, behind in zip(arguments, [*arguments[1:], ""], strict=True):
        found.append(argument)
        if argument == "--vectorize" and not behind.lstrip("-").isdecimal():
            found.append("0")
    return found


def refuse_together(options: Options, sweep: Sweep) -> None:
    """Raises `UsageError` where trials cannot train together."""
    if options.vectorize < 0:
        raise UsageError(f"--vectorize is {options.vectorize}; it must be at least 1, or be left")
    if options.vectorize == 1:
        return
    if not isinstance(sweep, Grid):
        raise UsageError(
            "--vectorize is for a Grid: a search proposes each trial by those before it, and stops "
            "single ones; leave the option out"
        )
    if isinstance(options.experiment.data, Streamed):
        raise UsageError("--vectorize is for data that is kept in memory; leave the option out")
    if options.executor == "slurm":
        raise UsageError(
            "--vectorize is for local processes: a SLURM job has one trial; leave one of the two "
            "options out, or run sweep.py --vectorize itself as a job"
        )


def make_queue(folder: SweepFolder, experiment: Experiment, sweep: Sweep, together: int) -> Queue:
    """The sweep's trials. Everything is checked before anything is written."""
    if isinstance(sweep, Grid):
        trials = expand(experiment, sweep)
        folder.begin(experiment)
        folder.add(list(trials))
        return GridQueue(trials, together)
    SearchQueue.check(experiment, sweep)
    folder.begin(experiment)
    return SearchQueue(experiment, sweep, folder)


def make_executor(folder: SweepFolder, queue: Queue, sweep: Sweep, options: Options) -> Executor:
    """What runs them."""
    if options.executor == "local":
        return Local(folder, options.jobs, visible_gpus())
    at_once = len(queue.known()) if isinstance(sweep, Grid) else options.jobs
    return Slurm(folder, at_once, options.jobs, options.slurm, options.experiment.name)


def show_costs(folder: SweepFolder, experiment: Experiment, sweep: Sweep, console: Console) -> None:
    """Prints the trials of a grid with their costs."""
    if not isinstance(sweep, Grid):
        console.print(f"a search of {sweep.trials} trials, each proposed by those before it:")
        for name, values in sweep.fields.items():
            console.print(f"  {name}: {values}", highlight=False)
        return
    from resflax.sweep.cost import cost_table, costs  # imports JAX: only now

    console.print(cost_table(folder, costs(folder, expand(experiment, sweep))))


if __name__ == "__main__":
    run(main)
