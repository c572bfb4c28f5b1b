"""Runs trials as jobs of a SLURM cluster.

submitit submits them as an array with a time limit. A job that reaches the limit is requeued, and
its trial continues.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from resflax.declarations.checks import check_types, refuse
from resflax.errors import UsageError
from resflax.files import write_atomically
from resflax.locks import in_turn, take_lock
from resflax.sweep.executors import Job, last_line, worker_command
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trials import Trial
from resflax.text import one_line

_WARNING_SECONDS = 120
"""How long before its time limit a job is told to save."""
SAVING_SECONDS = 90.0
"""How long a worker may take to save and end. Then there is time left to requeue the job."""


@dataclass(frozen=True)
class SlurmOptions:
    """The resources that every job requests from the cluster."""

    partition: str | None = None
    """Partition, or several separated by commas. None: the cluster's default."""

    minutes: int = 60
    """Time limit. A job that reaches it saves, is requeued and continues."""

    gpus: int = 0
    """Number of GPUs on the job's node."""

    cpus: int = 4
    """Number of processor cores."""

    memory_gb: int = 16
    """Host memory in GB."""

    account: str | None = None
    """Account to charge. None: the user's default."""

    constraint: str | None = None
    """Features that the node must have."""

    requeues: int = 100
    """How often a job may be requeued."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value of the wrong type or a number that is too small."""
        check_types(self)
        for field in ("minutes", "cpus", "memory_gb"):
            if getattr(self, field) < 1:
                refuse(self, field, "it must be at least 1")
        for field in ("gpus", "requeues"):
            if getattr(self, field) < 0:
                refuse(self, field, "it must be at least 0")


class SlurmTask:
    """The task of a job on its node, which is to run the worker of one trial.

    submitit pickles the task and calls it on the node. Shortly before the time limit SLURM sends
    SIGUSR2, and submitit's signal handler calls `checkpoint`. It interrupts `__call__` in the
    middle, which then never goes on: submitit requeues the job and exits. SIGTERM comes when the
    job is cancelled. SLURM may send either to this process alone, so the worker is told from here.

    Args:
      arguments: the worker's command line.
      log: the file that the worker prints to.
      lock_file: the file that the worker keeps locked.
    """

    def __init__(self, arguments: list[str], log: Path, lock_file: Path) -> None:
        self.arguments, self.log, self.lock_file = arguments, log, lock_file
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Runs the worker and returns its exit code, or 0 if another process runs the trial."""
        lock = take_lock(self.lock_file)
        if lock is None:
            return 0
        before = None
        with contextlib.suppress(ValueError):  # not the main thread
            before = signal.signal(signal.SIGTERM, self._pass_on)
        try:
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(
                    self.arguments, stdout=log, stderr=subprocess.STDOUT, pass_fds=(lock,)
                )
            os.close(lock)
            return self.process.wait()
        finally:
            if before is not None:
                signal.signal(signal.SIGTERM, before)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def checkpoint(self) -> Any:
        """Lets the worker save and end, and returns the submission that submitit requeues.

        A worker that does not end in time is killed, because only a job that is requeued before its
        time limit continues.
        """
        import submitit

        if self.process is not None:
            for number, seconds in ((signal.SIGTERM, SAVING_SECONDS), (signal.SIGKILL, 10.0)):
                self.process.send_signal(number)
                if _ends_within(self.process.pid, seconds):
                    break
        continuation = SlurmTask(self.arguments, self.log, self.lock_file)
        return submitit.helpers.DelayedSubmission(continuation)


def _ends_within(process_id: int, seconds: float) -> bool:
    """Waits for a child process to end, for so long at most; returns whether it has ended.

    The child is not reaped. `Popen.wait` must not be called in a signal handler: the code that was
    interrupted may be in the same call, and it holds a lock.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        except ChildProcessError:  # it was reaped before
            return True
        time.sleep(0.05)
    return False


class SlurmJob:
    """A job in the cluster's queue."""

    def __init__(self, trial: Trial, job: Any, log: Path) -> None:
        self.trials: Sequence[Trial] = (trial,)
        self.job, self._log = job, log
        self._error = ""

    def poll(self) -> int | None:
        """The worker's exit code; 1 if the job was lost, and None while it waits or runs."""
        if not self.job.done():
            return None
        try:
            return int(self.job.result())
        except Exception as error:  # submitit raises many types of errors for a lost job
            self._error = one_line(error)
            return 1

    def stop(self) -> None:
        """Cancels the job. SLURM first sends SIGTERM, after which the worker saves."""
        self.job.cancel(check=False)

    def failure_reason(self, trial: Trial) -> str:
        """The last line that the worker printed, or SLURM's message about the job."""
        return last_line(self._log) or self._error

    def close(self) -> None:
        """Does nothing, because the trial's lock is held on the job's node."""


class SlurmExecutor:
    """Runs trials as jobs of a SLURM cluster; trials that start together form one array.

    Args:
      folder: the sweep's folder.
      capacity: the largest number of jobs in the cluster's queue, waiting and running.
      parallelism: the largest number of jobs of an array that run at the same time.
      options: the resources that every job requests.
      name: the name of the jobs.

    Raises:
      UsageError: if submitit is missing or this machine has no SLURM.
    """

    detached = True

    def __init__(
        self, folder: SweepFolder, capacity: int, parallelism: int, options: SlurmOptions, name: str
    ) -> None:
        self.capacity = capacity
        self._folder = folder
        self._jobs_folder = folder.path / "slurm"
        self._submitit = _import_submitit()
        try:
            self._submitter = self._submitit.SlurmExecutor(
                self._jobs_folder / "%j", max_num_timeout=options.requeues
            )
        except RuntimeError as error:
            raise UsageError(f"this machine has no SLURM: {one_line(error)}") from None
        parameters: dict[str, Any] = {
            "job_name": name,
            "time": options.minutes,
            "mem": f"{options.memory_gb}GB",
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": options.cpus,
            "array_parallelism": parallelism,
            "signal_delay_s": _WARNING_SECONDS,
        }
        for field in ("partition", "account", "constraint"):
            if getattr(options, field) is not None:
                parameters[field] = getattr(options, field)
        if options.gpus:
            parameters["gpus_per_node"] = options.gpus
        self._submitter.update_parameters(**parameters)

    def start(self, groups: Sequence[Sequence[Trial]]) -> list[Job]:
        """Submits a job for each trial, unless it still has one from an earlier launcher.

        Groups are not kept together, because every trial has a job of its own.
        """
        trials = [trial for group in groups for trial in group]
        # Another launcher that submits now must see these jobs, or it would submit them too.
        self._jobs_folder.mkdir(parents=True, exist_ok=True)
        with in_turn(self._jobs_folder / "submit.lock"):
            jobs = self._submit(trials)
        return [SlurmJob(trial, jobs[trial.hash], self._folder.log(trial)) for trial in trials]

    def close(self) -> None:
        """Does nothing, because jobs end by themselves."""

    def _submit(self, trials: Sequence[Trial]) -> dict[str, Any]:
        """Submits the trials that have no job yet; returns all jobs by the trials' hashes."""
        jobs = {
            trial.hash: job for trial in trials if (job := self._earlier_job(trial)) is not None
        }
        new_trials = [trial for trial in trials if trial.hash not in jobs]
        if new_trials:
            with self._submitter.batch():
                new_jobs = [self._submitter.submit(self._task(trial)) for trial in new_trials]
            for trial, job in zip(new_trials, new_jobs, strict=True):
                write_atomically(self._job_file(trial), json.dumps({"job": job.job_id}))
                jobs[trial.hash] = job
        return jobs

    def _task(self, trial: Trial) -> SlurmTask:
        return SlurmTask(
            worker_command(self._folder, trial),
            self._folder.log(trial).absolute(),
            self._folder.lock_file(trial).absolute(),
        )

    def _job_file(self, trial: Trial) -> Path:
        return self._jobs_folder / f"{trial.hash}.json"

    def _earlier_job(self, trial: Trial) -> Any:
        """The job that an earlier launcher submitted for the trial; None if none waits or runs."""
        try:
            job_id = json.loads(self._job_file(trial).read_text(encoding="utf-8"))["job"]
        except FileNotFoundError:
            return None
        job = self._submitit.SlurmJob(folder=self._jobs_folder / "%j", job_id=job_id)
        return None if job.done(force_check=True) else job


def _import_submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise UsageError("SLURM needs submitit: pip install 'resflax[slurm]'") from None
    return submitit
