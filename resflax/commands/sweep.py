"""Runs the trials of an experiment's sweep that are not done yet.

usage: resflax sweep EXPERIMENT [--sweep-dir DIR] [--jobs N] [--executor local|slurm]
           [--dry-run] [--vectorize [N]] [--FIELD VALUE ...]

  EXPERIMENT          a Python file that declares `experiment = Experiment(...)` and
                      `sweep = Grid(...)` or `sweep = Search(...)`
  --sweep-dir DIR     the folder of the sweep (default: sweeps/NAME-HASH)
  --jobs N            number of trials at a time; if there are several GPUs, each trial has one
                      (default: 1; that trial has all devices)
  --executor slurm    runs the trials as jobs of a SLURM cluster, with options such as
                      --slurm.minutes 60 --slurm.gpus 1
  --vectorize [N]     trains trials together in one step, at most N of them (default: no limit);
                      they must have the same network and differ only in seed, learning rate,
                      weight decay or momentum; --jobs then counts these groups
  --dry-run           shows the trials and what they cost, and runs nothing
  --FIELD VALUE       replaces a field of every trial, such as --epochs 2

resflax sweep EXPERIMENT --help lists every field with the value that it has in that file.

Each trial has a run folder named after the hash of its experiment. The command does not run a
finished trial again, continues a trial that was interrupted, and, if the sweep has changed, adds
the missing trials. A trial that fails does not stop the others. On Ctrl-C, on SIGTERM, SIGUSR1 and
SIGUSR2, when the terminal is closed (SIGHUP), and when the soft limit of processor time is reached
(SIGXCPU), the trials save before they end. The sweep goes on if what it prints cannot be written.

exit codes: 0 done; 1 trials failed; 2 bad usage, experiment or data;
            ended by a signal, after saving: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP,
            138 SIGUSR1, 140 SIGUSR2, 152 SIGXCPU
"""

import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from resflax.parts.user_files import read_user_files
from resflax.paths import user_path
from resflax.runs.initial_weights import with_initial_weights
from resflax.sweep.assembly import make_executor, make_queue
from resflax.sweep.command_options import ExecutorName, check_options, with_group_size
from resflax.sweep.dry_run import print_plan
from resflax.sweep.launcher import Launcher
from resflax.sweep.live_table import LiveTable
from resflax.sweep.notes import sweep_notes
from resflax.sweep.slurm import SlurmOptions
from resflax.sweep.standings import raise_failures, summary_line
from resflax.sweep.sweep_folder import SweepFolder, default_sweep_path
from resflax.terminal.experiment_files import load_sweep
from resflax.terminal.options import (
    ExperimentFile,
    Flag,
    Overridden,
    parse_with_experiment,
    refuse_varied,
)
from resflax.terminal.output import accept_lost_output
from resflax.terminal.program import as_called


@dataclass(frozen=True)
class Options:
    """Runs the trials of an experiment's sweep that are not done yet."""

    file: ExperimentFile
    """A Python file that declares `experiment = Experiment(...)` and `sweep = Grid(...)`."""

    experiment: Overridden

    sweep_dir: str | None = None
    """Folder of the sweep. None: sweeps/NAME-HASH."""

    jobs: int = 1
    """Number of trials at a time. If it is above 1 and there are several GPUs, each trial has one
    GPU."""

    executor: ExecutorName = "local"
    """Where trials run: as processes on this machine, or as jobs of a SLURM cluster."""

    vectorize: int = 1
    """Largest number of trials that train together in one step. They may differ only in seed,
    learning rate, weight decay or momentum. 0, or the option without a number: no limit."""

    slurm: SlurmOptions = dataclasses.field(default_factory=SlurmOptions)

    dry_run: Flag = False
    """Show the trials and what they cost, and run nothing."""


def main(arguments: Sequence[str]) -> None:
    """Runs the trials that are missing, and prints how each trial ended."""
    options = parse_with_experiment(Options, with_group_size(arguments), usage=__doc__ or "")
    experiment, sweep = options.experiment, load_sweep(user_path(options.file))
    refuse_varied(sweep.fields_that_vary, arguments)
    check_options(options.jobs, options.vectorize, options.executor, experiment, sweep)
    experiment = with_initial_weights(experiment)
    path = user_path(options.sweep_dir) if options.sweep_dir else default_sweep_path(experiment)
    console = Console()
    say = partial(console.print, soft_wrap=True, highlight=False, markup=False)
    folder = SweepFolder(path, say)
    if options.dry_run:
        print_plan(folder, experiment, sweep, console)
        return
    files = read_user_files(user_path(options.file))
    queue = make_queue(folder, experiment, sweep, options.vectorize, files)
    executor = make_executor(
        options.executor, folder, queue, options.jobs, options.slurm, experiment.name
    )
    say(f"the sweep is in {path}")
    for note in sweep_notes(experiment, sweep, queue.known_trials()):
        say(note)
    with LiveTable(folder, console) as table:
        standings = Launcher(folder, queue, executor, table.show, table.say).run()
    say(summary_line(standings))
    say(as_called(f"resflax report {shlex.quote(str(path))}"))
    accept_lost_output()
    raise_failures(standings)
