"""The worker of trials that train together: `python -m resflax.sweep.worker SWEEP HASH ...`.

The launcher starts it. Each trial prints to its own log, as it does when it trains alone.
Tracebacks go to the output of the process.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from resflax.declarations.sweeps import Point
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import Trial
from resflax.terminal.command import run
from resflax.terminal.experiment_files import load_experiment
from resflax.terminal.output import accept_lost_output, log_file


def main(arguments: Sequence[str]) -> None:
    """Trains the trials with the given hashes; each has its run folder in the sweep folder.

    The arguments are the sweep folder and the hashes. Exits with 1 if any trial fails; the reason
    is in the log of that trial.
    """
    from resflax.runs.group import train_group  # imports JAX

    path, *hashes = arguments
    folder = SweepFolder(Path(path))
    declared = (load_experiment(folder.experiment_file(name), trust_code=True) for name in hashes)
    trials = [Trial(Point({}), experiment) for experiment in declared]
    members = []
    for trial in trials:
        members.append(
            (trial.experiment, folder.run(trial), Console(file=log_file(folder.log(trial))))
        )
    failed = train_group(members)
    accept_lost_output()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run(main)
