"""Runs trials as processes on this machine."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence

from resflax.locks import close_all, take_lock
from resflax.sweep.executors import Job, group_worker_command, last_line, log_size
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import Trial
from resflax.sweep.workers import Worker, WorkerJob


class GroupJob:
    """A process that trains several trials together.

    It has a session of its own, so Ctrl-C does not reach it.

    Args:
      folder: the sweep's folder.
      trials: the trials that the process runs.
      locks: descriptors of the trials' locks. The process inherits them and holds the locks as long
        as it lives; this process holds them until `close`.
      slot: the job's number among those that run at the same time.
      environment: all environment variables of the process.
    """

    def __init__(
        self,
        folder: SweepFolder,
        trials: Sequence[Trial],
        locks: Sequence[int],
        slot: int,
        environment: Mapping[str, str],
    ) -> None:
        self.trials, self.slot = trials, slot
        self._locks = list(locks)
        self._logs = {trial.hash: folder.log(trial) for trial in trials}
        self._log_starts = {name: log_size(log) for name, log in self._logs.items()}
        with open(folder.log(trials[0]), "ab") as log:
            self._process = subprocess.Popen(
                group_worker_command(folder, trials),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
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
        close_all(self._locks)


LocalJob = GroupJob | WorkerJob


class LocalExecutor:
    """Runs trials on this machine: one after another in lasting processes, the workers.

    Trials that train together have a process of their own. If jobs run one at a time, each job has
    all devices. Otherwise each has one of the GPUs, if there are any, and jobs on the same GPU
    share its memory.

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
        self._workers: dict[int, Worker] = {}
        """The newest worker of each slot."""

    def start(self, groups: Sequence[Sequence[Trial]]) -> list[Job]:
        """Starts one job for each group, and leaves out trials that another process runs."""
        # All locks come first, since the launcher has just seen that these trials have not ended.
        locked = [self._locked(group) for group in groups]
        started: list[Job] = []
        for trials, locks in locked:
            if not trials:
                continue
            self._jobs = [job for job in self._jobs if job.poll() is None]
            used_slots = {job.slot for job in self._jobs}
            slot = min(set(range(len(used_slots) + 1)) - used_slots)
            job = self._start(trials, locks, slot)
            self._jobs.append(job)
            started.append(job)
        return started

    def _locked(self, group: Sequence[Trial]) -> tuple[list[Trial], list[int]]:
        """Locks the trials that no other process runs; returns them and their locks."""
        trials, locks = [], []
        for trial in group:
            lock = take_lock(self._folder.lock_file(trial))
            if lock is not None:
                trials.append(trial)
                locks.append(lock)
        return trials, locks

    def _start(self, trials: Sequence[Trial], locks: Sequence[int], slot: int) -> LocalJob:
        environment = os.environ | slot_variables(slot, self.capacity, self._gpus)
        worker = self._workers.pop(slot, None)
        if len(trials) == 1:
            job = WorkerJob(self._folder, trials[0], locks[0], slot, environment, worker)
            self._workers[slot] = job.worker
            return job
        if worker is not None:  # the group needs the memory
            worker.close()
        return GroupJob(self._folder, trials, locks, slot, environment)

    def close(self) -> None:
        """Ends the workers that wait for further trials."""
        while self._workers:
            self._workers.popitem()[1].close()


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
