"""The protocols of executors and their jobs, and the command lines of workers."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import Trial

# -P: a folder `resflax` or a file `random.py` in the working directory is not what they import.
_PYTHON = (sys.executable, "-P", "-m")


class Job(Protocol):
    """One trial that runs, or several that train together in one process."""

    trials: Sequence[Trial]

    def poll(self) -> int | None:
        """The exit code; None while the job waits or runs.

        A negative code is the number of the signal that killed the process.
        """

    def stop(self) -> None:
        """Asks the job to save its training and end."""

    def failure_reason(self, trial: Trial) -> str:
        """Why a trial ended without a result, on one line."""

    def close(self) -> None:
        """Lets other launchers run the trials. Called when the end of the job is recorded."""


class Executor(Protocol):
    """Starts trials on some machine."""

    capacity: int
    """The largest number of jobs at a time."""

    detached: bool
    """Whether jobs keep running after the launcher has ended."""

    def start(self, groups: Sequence[Sequence[Trial]]) -> list[Job]:
        """Starts one job for each group, and leaves out trials that another process runs."""

    def close(self) -> None:
        """Ends processes that wait for further trials."""


def worker_command(folder: SweepFolder, trial: Trial) -> list[str]:
    """The command line that trains one trial alone; it works in every working directory."""
    experiment, run = folder.experiment_file(trial.hash), folder.run(trial).path
    train = [*_PYTHON, "resflax.commands", "train"]
    # The launcher has just copied the code of the user's own classes.
    trust = ["--trust-code"] if trial.experiment.own_classes else []
    return [*train, str(experiment.absolute()), "--run-dir", str(run.absolute()), *trust]


def serving_command(folder: SweepFolder, channel: int) -> list[str]:
    """The command line of a process that trains one trial after another.

    It works in every working directory. `channel` is the descriptor of the process's socket.
    """
    return [*_PYTHON, "resflax.sweep.serving", str(folder.path.absolute()), str(channel)]


def group_worker_command(folder: SweepFolder, trials: Sequence[Trial]) -> list[str]:
    """The command line of the worker of trials that train together, for every working directory."""
    hashes = [trial.hash for trial in trials]
    return [*_PYTHON, "resflax.sweep.worker", str(folder.path.absolute()), *hashes]


def log_size(log: Path) -> int:
    """The number of bytes that a log has so far."""
    return log.stat().st_size if log.exists() else 0


def last_line(log: Path, start: int = 0) -> str:
    """Returns the last line after byte `start` that is not empty, without its prefix `error: `."""
    try:
        text = log.read_bytes()[start:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""
