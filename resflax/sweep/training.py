"""Trains one trial after another in this process, and tells when another process is needed."""

import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from resflax.declarations.sweeps import Point
from resflax.devices.compilation import keep_compiled
from resflax.errors import TrainingError, UsageError
from resflax.parts.loading import forget_classes
from resflax.parts.user_files import imported_files
from resflax.runs.programs import KeptPrograms
from resflax.runs.run_folder import describe_result
from resflax.runs.session import train
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import Trial
from resflax.terminal.experiment_files import load_experiment
from resflax.terminal.output import accept_lost_output

_MOST_MAPS = 30_000
"""Each compiled program has some memory maps, of which Linux allows a process 65,530."""
_GROWTH = 2.0
"""How many times the memory after the first trial a process may hold between two trials."""


class Trainer:
    """Trains the trials of a sweep as if each had a process of its own."""

    def __init__(self, folder: SweepFolder) -> None:
        keep_compiled()
        self._folder = folder
        self._programs = KeptPrograms()
        self._settings = _settings()
        self._failed = False
        self._first_size: int | None = None

    def train(self, trial_hash: str) -> None:
        """Trains the trial with this hash, as `resflax train` does, and prints the result.

        Raises as `session.train` does.
        """
        file = self._folder.experiment_file(trial_hash)
        experiment = load_experiment(file, trust_code=True)  # the launcher wrote the code
        run = self._folder.run(Trial(Point({}), experiment))
        # The code of the user's own classes runs anew for each trial, so nothing of it is kept.
        programs = None if experiment.own_classes else self._programs
        try:
            result = train(experiment, run, Console(), programs=programs)
        except (UsageError, TrainingError) as error:
            # An error of JAX or a lack of memory may leave something behind.
            self._failed = isinstance(error.__cause__, jax.errors.JaxRuntimeError | MemoryError)
            raise
        print(describe_result(run.path, result))
        accept_lost_output()

    def clean_up(self) -> bool:
        """Forgets the last trial; returns whether something may be left, or too much is."""
        forget_classes()
        gc.collect()
        if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
            library.malloc_trim(0)  # gives memory back that the next trial may need
        return (
            self._failed
            # Another process finds the memory of an accelerator as it was.
            or jax.default_backend() != "cpu"
            or _settings() != self._settings
            # They may have kept something, or change until the next trial.
            or bool(imported_files(Path("/")))
            or self._has_grown()
        )

    def _has_grown(self) -> bool:
        process = Path("/proc/self")
        if not process.exists():  # not Linux
            return False
        size = int((process / "statm").read_text("ascii").split()[1])
        self._first_size = self._first_size or size
        maps = (process / "maps").read_bytes().count(b"\n")
        return maps > _MOST_MAPS or size > _GROWTH * self._first_size


def _settings() -> dict[str, Any]:
    """Returns the settings of the whole process that a trial may have changed."""
    return {
        # scikit-learn sets variables of that name when the digits are prepared.
        "environment": {n: os.environ[n] for n in os.environ if not n.startswith("KMP_")},
        "folder": os.getcwd(),
        "modules": list(sys.path),
        "jax": {name: repr(value) for name, value in jax.config.values.items()},
    }
