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
        log = folder.log(trial).open("a", 1, "utf-8", errors="backslashreplace")
        members.append((trial.experiment, folder.run(trial), Console(file=log)))
    sys.exit(1 if train_group(members) else 0)


if __name__ == "__main__":
    run(main)
