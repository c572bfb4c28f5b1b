"""Trains an experiment, or continues it where it was cut off.

usage: train.py EXPERIMENT [--run-dir DIR] [--FIELD VALUE ...]
       train.py --from RUN [--run-dir DIR] [--FIELD VALUE ...]

  EXPERIMENT     a Python file that declares `experiment = Experiment(...)`
  --from RUN     repeats the experiment of a run folder instead
  --run-dir DIR  where the run is kept (default: runs/NAME-HASH)
  --hosts HOSTS  trains on several hosts together, with the same command on each:
                 ADDRESS:PORT,COUNT,NUMBER, or auto (TPU pods; SLURM and Open MPI
                 with a task for each GPU)
  --FIELD VALUE  replaces a field of the experiment: --seed 3 --model.depth 56
                 --optimizer.learning-rate 0.05; --steps replaces --epochs and
                 the other way round

train.py EXPERIMENT --help lists every field with the value it has in that file.

In a folder that holds an unfinished run of the same experiment, the run is continued; in one
that holds the finished run, nothing is done. Ctrl-C, SIGTERM and SIGUSR1 save first.

exit codes: 0 done; 1 a failure while running; 2 bad usage, experiment or data;
            130, 143 and 138 ended by Ctrl-C, SIGTERM or SIGUSR1, after saving
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from resflax.command_line import ExperimentFile, Overridden, parse_with_experiment, run
from resflax.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Trains an experiment, or continues it where it was cut off."""

    file: ExperimentFile
    """A Python file that declares `experiment = Experiment(...)`."""

    experiment: Overridden

    run_dir: str | None = None
    """Where the run is kept. None: runs/NAME-HASH."""

    hosts: str | None = None
    """Trains on several hosts together: ADDRESS:PORT,COUNT,NUMBER, or `auto`."""

    from_run: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Run folder whose experiment is repeated, in place of EXPERIMENT."""


def main(arguments: Sequence[str]) -> None:
    """Trains, and prints the result and where it lies."""
    options = parse_with_experiment(Options, arguments, usage=__doc__ or "")
    from resflax.training import hosts
    from resflax.training.run_folder import RunFolder, default_path, describe_result
    from resflax.training.session import train  # imports JAX: only now

    experiment = options.experiment
    path = Path(options.run_dir) if options.run_dir else default_path(experiment)
    if (
        options.from_run
        and not options.run_dir
        and path.absolute() == Path(options.from_run).absolute()
    ):
        raise UsageError(f"{path} is the run to be repeated: name another folder with --run-dir")
    if options.hosts is not None:
        hosts.join(options.hosts)
    result = train(experiment, RunFolder(path), Console(quiet=not hosts.first()))
    if hosts.first():
        print(describe_result(path, result))


if __name__ == "__main__":
    run(main)
