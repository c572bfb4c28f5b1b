"""Runs trials as processes on this machine."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from resflax.locks import take_lock
from resflax.sweep.executors import Job, group_worker_command, last_line, worker_command
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import Trial


class LocalJob:
    """A process on this machine. It has a session of its own, so Ctrl-C does not reach it.

    Args:
      folder: the sweep's folder.
      trials: the trials that the process runs.
      locks: descriptors of the trials' locks. The process inherits them and holds the locks as long
        as it lives; this process holds them until `close`.
      slot: the job's number among those that run at the same time.
      variables: environment variables that the process has in addition to those of this one.
    """

    def __init__(
        self,
        folder: SweepFolder,
        trials: Sequence[Trial],
        locks: Sequence[int],
        slot: int,
        variables: dict[str, str],
    ) -> None:
        self.trials, self.slot = trials, slot
        self._locks = list(locks)
        self._logs = {trial.hash: folder.log(trial) for trial in trials}
        self._log_starts = {name: _size(log) for name, log in self._logs.items()}
        alone = len(trials) == 1
        with open(folder.log(trials[0]), "ab") as log:
            self._process = subprocess.Popen(
                worker_command(folder, trials[0])
                if alone
                else group_worker_command(folder, trials),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | variables,
                pass_fds=locks,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Sends SIGTERM, after which the worker saves and ends."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def failure_reason(self, trial: Trial) -> str:
        """The last line that the worker printed for the trial, or else its exit code."""
        line = last_line(self._logs[trial.hash], self._log_starts[trial.hash])
        return line or f"exit code {self._process.returncode}"

    def close(self) -> None:
        """Gives up the trials' locks. The process must have ended."""
        while self._locks:
            os.close(self._locks.pop())


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


class LocalExecutor:
    """Runs trials as processes on this machine.

    If jobs run one at a time, each job has all devices. Otherwise each has one of the GPUs, if
    there are any, and jobs on the same GPU share its memory.

    Args:
      folder: the sweep's folder.
      jobs: the largest number of jobs at a time.
      gpus: the GPUs to use, named as in CUDA_VISIBLE_DEVICES.
    """

    detached = False

    def __init__(self, folder: SweepFolder, jobs: int, gpus: Sequence[str]) -> None:
        self.capacity = jobs
        self._folder, self._gpus = folder, gpus
        self._jobs: list[LocalJob] = []

    def start(self, groups: Sequence[Sequence[Trial]]) -> list[Job]:
        """Starts one job for each group, and leaves out trials that another process runs."""
        started: list[Job] = []
        for group in groups:
            trials, locks = [], []
            for trial in group:
                lock = take_lock(self._folder.lock_file(trial))
                if lock is not None:
                    trials.append(trial)
                    locks.append(lock)
            if not trials:
                continue
            self._jobs = [job for job in self._jobs if job.poll() is None]
            used_slots = {job.slot for job in self._jobs}
            slot = min(set(range(len(used_slots) + 1)) - used_slots)
            variables = slot_variables(slot, self.capacity, self._gpus)
            job = LocalJob(self._folder, trials, locks, slot, variables)
            self._jobs.append(job)
            started.append(job)
        return started


def slot_variables(slot: int, slots: int, gpus: Sequence[str]) -> dict[str, str]:
    """Environment variables that give a worker its GPU and its share of that GPU's memory.

    Args:
      slot: the job's number, from 0 to slots - 1.
      slots: the largest number of jobs at a time.
      gpus: the GPUs to use, named as in CUDA_VISIBLE_DEVICES.
    """
    if slots == 1 or not gpus:
        return {}
    variables = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]}
    jobs_on_gpu = len(range(slot % len(gpus), slots, len(gpus)))
    if jobs_on_gpu > 1:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / jobs_on_gpu:.2f}"
    return variables


def visible_gpus() -> list[str]:
    """Returns the NVIDIA GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES.

    JAX is not asked, because it would occupy their memory.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    completed = subprocess.run(command, capture_output=True, encoding="utf-8")
    return completed.stdout.split() if completed.returncode == 0 else []
