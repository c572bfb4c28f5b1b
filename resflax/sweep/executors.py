"""Where trials run. An executor starts a trial and gives back a job to ask and to stop."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from resflax.sweep.folder import SweepFolder, claim
from resflax.sweep.trials import Trial

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"


class Job(Protocol):
    """Trials that were started in one process: one, or several that train together."""

    trials: Sequence[Trial]

    def poll(self) -> int | None:
        """The exit code (negative: killed by that signal), or None while it goes on."""

    def stop(self) -> None:
        """Asks it to save and end."""

    def why(self, trial: Trial) -> str:
        """One line on why a trial ended without a result."""


class Executor(Protocol):
    """Starts trials."""

    capacity: int
    """Jobs at a time."""

    detached: bool
    """Whether trials go on when the launcher ends."""

    def start(self, groups: Sequence[Sequence[Trial]]) -> list[Job]:
        """Starts a job for each group, of those trials that nobody else runs."""


def command(folder: SweepFolder, trial: Trial) -> list[str]:
    """The command line of a trial's worker."""
    return [
        sys.executable,
        str(TRAIN),
        str(folder.declared(trial)),
        "--run-dir",
        str(folder.run(trial).path),
    ]


def group_command(folder: SweepFolder, trials: Sequence[Trial]) -> list[str]:
    """The command line of the worker of several trials."""
    hashes = [trial.hash for trial in trials]
    return [sys.executable, "-m", "resflax.sweep.worker", str(folder.path), *hashes]


def last_words(log: Path, start: int = 0) -> str:
    """The last line that was printed behind byte `start`."""
    try:
        text = log.read_bytes()[start:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""


class LocalJob:
    """A process of this machine, in a session of its own: a terminal's Ctrl-C is not for it."""

    def __init__(
        self,
        folder: SweepFolder,
        trials: Sequence[Trial],
        claimed: Sequence[int],
        place: int,
        flags: dict[str, str],
    ) -> None:
        self.trials, self.place = trials, place
        logs = {trial.hash: folder.log(trial) for trial in trials}
        self._logs = {name: (log, _size(log)) for name, log in logs.items()}
        alone = len(trials) == 1
        with open(folder.log(trials[0]), "ab") as log:
            self._process = subprocess.Popen(
                command(folder, trials[0]) if alone else group_command(folder, trials),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | flags,
                pass_fds=claimed,
                start_new_session=True,
            )
        for descriptor in claimed:
            os.close(descriptor)  # the worker holds it now

    def poll(self) -> int | None:
        """The exit code, or None while it goes on."""
        return self._process.poll()

    def stop(self) -> None:
        """SIGTERM: it saves and ends."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def why(self, trial: Trial) -> str:
        """The trial's last words."""
        return last_words(*self._logs[trial.hash]) or f"exit code {self._process.returncode}"


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


class Local:
    """Processes of this machine.

    With one place, a trial has all devices; with several and several GPUs, each place has one. On
    a GPU with several places each may take its share of the memory.
    """

    detached = False

    def __init__(self, folder: SweepFolder, jobs: int, gpus: Sequence[str]) -> None:
        self.capacity = jobs
        self._folder, self._gpus = folder, gpus
        self._jobs: list[LocalJob] = []

    def start(self, groups: Sequence[Sequence[Trial]]) -> list[Job]:
        """Starts the trials that no living process runs."""
        started: list[Job] = []
        for group in groups:
            trials, claimed = [], []
            for trial in group:
                held = claim(self._folder.claim_file(trial))
                if held is not None:
                    trials.append(trial)
                    claimed.append(held)
            if not trials:
                continue
            self._jobs = [job for job in self._jobs if job.poll() is None]
            taken = {job.place for job in self._jobs}
            place = min(set(range(len(taken) + 1)) - taken)
            flags = flags_of_place(place, self.capacity, self._gpus)
            job = LocalJob(self._folder, trials, claimed, place, flags)
            self._jobs.append(job)
            started.append(job)
        return started


def flags_of_place(place: int, places: int, gpus: Sequence[str]) -> dict[str, str]:
    """Environment variables of a worker: its GPU, and its share of that GPU's memory."""
    if places == 1 or not gpus:
        return {}
    flags = {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]}
    sharing = len(range(place % len(gpus), places, len(gpus)))
    if sharing > 1:
        flags["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / sharing:.2f}"
    return flags


def visible_gpus() -> list[str]:
    """NVIDIA GPUs this process may use, as CUDA_VISIBLE_DEVICES names them; without JAX, which
    would take their memory."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []
