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
    """A trial that was started."""

    trial: Trial

    def poll(self) -> int | None:
        """The exit code (negative: killed by that signal), or None while it goes on."""

    def stop(self) -> None:
        """Asks it to save and end."""

    def why(self) -> str:
        """One line on why it ended without a result."""


class Executor(Protocol):
    """Starts trials."""

    capacity: int
    """Trials at a time."""

    detached: bool
    """Whether trials go on when the launcher ends."""

    def start(self, trials: Sequence[Trial]) -> list[Job]:
        """Starts those that nobody else runs; at most as many as there is room for."""


def command(folder: SweepFolder, trial: Trial) -> list[str]:
    """The command line of a trial's worker."""
    return [
        sys.executable,
        str(TRAIN),
        str(folder.declared(trial)),
        "--run-dir",
        str(folder.run(trial).path),
    ]


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
        self, folder: SweepFolder, trial: Trial, claimed: int, place: int, flags: dict[str, str]
    ) -> None:
        self.trial, self.place = trial, place
        self._log = folder.log(trial)
        with open(self._log, "ab") as log:
            self._start = log.tell()
            self._process = subprocess.Popen(
                command(folder, trial),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | flags,
                pass_fds=(claimed,),
                start_new_session=True,
            )
        os.close(claimed)  # the worker holds it now

    def poll(self) -> int | None:
        """The exit code, or None while it goes on."""
        return self._process.poll()

    def stop(self) -> None:
        """SIGTERM: it saves and ends."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def why(self) -> str:
        """Its last words."""
        return last_words(self._log, self._start) or f"exit code {self._process.returncode}"


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

    def start(self, trials: Sequence[Trial]) -> list[Job]:
        """Starts those that no living process runs."""
        started: list[Job] = []
        for trial in trials:
            claimed = claim(self._folder.claim_file(trial))
            if claimed is None:
                continue
            self._jobs = [job for job in self._jobs if job.poll() is None]
            taken = {job.place for job in self._jobs}
            place = min(set(range(len(taken) + 1)) - taken)
            flags = flags_of_place(place, self.capacity, self._gpus)
            job = LocalJob(self._folder, trial, claimed, place, flags)
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
