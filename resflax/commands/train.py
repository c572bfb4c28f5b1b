"""Trains an experiment, or continues it where it was interrupted.

usage: resflax train EXPERIMENT [--run-dir DIR] [--FIELD VALUE ...]
       resflax train --from RUN [--run-dir DIR] [--FIELD VALUE ...]

  EXPERIMENT     a Python file that declares `experiment = Experiment(...)`
  --from RUN     repeats the experiment of a run folder instead, or continues it there
  --trust-code   runs the code of classes of your own as RUN keeps it, if the files where
                 it came from have changed or are gone
  --run-dir DIR  where the run is kept (default: runs/NAME-HASH)
  --hosts HOSTS  trains on several hosts together, with the same command on each:
                 ADDRESS:PORT,COUNT,NUMBER, or auto (TPU pods; SLURM and Open MPI
                 with a task for each GPU)
  --FIELD VALUE  replaces a field of the experiment, such as --seed 3 --model.depth 56
                 --optimizer.learning-rate 0.05; --steps replaces --epochs and
                 vice versa

resflax train EXPERIMENT --help lists every field with the value it has in that file.

If the folder holds an unfinished run of the same experiment, that run is continued; if the run
is finished, nothing is done. On Ctrl-C, on SIGTERM, SIGUSR1 and SIGUSR2, when the terminal is
closed (SIGHUP), and when the soft limit of processor time is reached (SIGXCPU), the run is saved
before it ends. It goes on if what it prints cannot be written.

exit codes: 0 done; 1 a failure while running; 2 bad usage, experiment or data;
            ended by a signal, after saving: 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP,
            138 SIGUSR1, 140 SIGUSR2, 152 SIGXCPU
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from resflax.errors import UsageError
from resflax.parts.user_files import read_user_files
from resflax.paths import user_path
from resflax.runs.initial_weights import with_initial_weights
from resflax.runs.run_folder import RunFolder, default_run_path, describe_result
from resflax.terminal.options import ExperimentFile, Flag, Overridden, parse_with_experiment
from resflax.terminal.output import accept_lost_output


@dataclass(frozen=True)
class Options:
    """Trains an experiment, or continues it where it was interrupted."""

    file: ExperimentFile
    """A Python file that declares `experiment = Experiment(...)`."""

    experiment: Overridden

    run_dir: str | None = None
    """Where the run is kept. None: runs/NAME-HASH."""

    hosts: str | None = None
    """Trains on several hosts together: ADDRESS:PORT,COUNT,NUMBER, or `auto`."""

    trust_code: Flag = False
    """Run the code of classes of your own as the run's folder keeps it, even if the file where it
    came from has changed or is gone. Trust only code that you know."""

    from_run: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Run folder whose experiment is repeated, in place of EXPERIMENT."""


def main(arguments: Sequence[str]) -> None:
    """Trains, and prints the result and the folder of the run."""
    options = parse_with_experiment(
        Options,
        arguments,
        usage=__doc__ or "",
        read_run=lambda path: RunFolder(
            path, trust_code="--trust-code" in arguments
        ).read_experiment(),
    )
    files = None if options.from_run else read_user_files(user_path(options.file))
    from resflax.devices import hosts
    from resflax.runs.session import train  # imports JAX: only now

    run_dir = user_path(options.run_dir) if options.run_dir else None
    experiment = with_initial_weights(
        options.experiment, None if run_dir is None else RunFolder(run_dir)
    )
    path = run_dir or default_run_path(experiment)
    if (
        options.from_run
        and not options.run_dir
        and path.absolute() == user_path(options.from_run).absolute()
        and RunFolder(path).result.exists()
    ):
        raise UsageError(f"{path} is the run to be repeated: name another folder with --run-dir")
    if options.hosts is not None:
        hosts.join(options.hosts)
    console = Console(quiet=not hosts.first())
    result = train(experiment, RunFolder(path), console, files)
    if hosts.first():
        print(describe_result(path, result))
    accept_lost_output()
