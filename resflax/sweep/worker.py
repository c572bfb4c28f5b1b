"""The worker of trials that train together: `python -m resflax.sweep.worker SWEEP HASH ...`.

The launcher starts it. Every trial has its own log, as alone; tracebacks go to where the process
prints.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from resflax.command_line import load_experiment, run
from resflax.declarations.sweeps import Point
from resflax.sweep.folder import SweepFolder
from resflax.sweep.trials import Trial


def main(arguments: Sequence[str]) -> None:
    """Trains the trials with these hashes, each in its run folder of the sweep folder.

    Exits with 1 if any of them fails; why is in its log.
    """
    from resflax.training.group import train_group  # imports JAX: only now

    path, *hashes = arguments
    folder = SweepFolder(Path(path))
    experiments = [load_experiment(folder.path / "declared" / f"{name}.json") for name in hashes]
    members = []
    for experiment in experiments:
        trial = Trial(Point({}), experiment)
        log = folder.log(trial).open("a", buffering=1, encoding="utf-8")
        members.append((experiment, folder.run(trial), Console(file=log)))
    sys.exit(1 if train_group(members) else 0)


if __name__ == "__main__":
    run(main)
