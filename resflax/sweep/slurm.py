"""Trials as jobs of a SLURM cluster, by submitit: arrays, time limits, requeueing with resume."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resflax.declarations.checks import check_types, refuse
from resflax.errors import UsageError
from resflax.sweep.executors import Job, command, last_words
from resflax.sweep.folder import SweepFolder, claim
from resflax.sweep.trials import Trial
from resflax.training.files import write_atomically


@dataclass(frozen=True)
class SlurmOptions:
    """What every job asks for."""

    partition: str | None = None
    """Partition(s). None: the cluster's default."""

    minutes: int = 60
    """Time limit. A job that reaches it saves, is requeued and continues."""

    gpus: int = 0
    """GPUs of a node."""

    cpus: int = 4
    """Processor cores."""

    memory_gb: int = 16
    """Memory."""

    account: str | None = None
    """Account to charge. None: the user's default."""

    constraint: str | None = None
    """Features of the nodes."""

    requeues: int = 100
    """How often a job may be requeued."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        for field in ("minutes", "cpus", "memory_gb"):
            if getattr(self, field) < 1:
                refuse(self, field, "it must be at least 1")
        for field in ("gpus", "requeues"):
            if getattr(self, field) < 0:
                refuse(self, field, "it must be at least 0")


class Work:
    """What a job does: one trial's worker. submitit calls `checkpoint` before the time is up."""

    def __init__(self, arguments: list[str], log: Path, claim_file: Path) -> None:
        self.arguments, self.log, self.claim_file = arguments, log, claim_file
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Runs the worker and returns its exit code; 0 at once if somebody else has the trial."""
        claimed = claim(self.claim_file)
        if claimed is None:
            return 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.arguments, stdout=log, stderr=subprocess.STDOUT, pass_fds=(claimed,)
            )
        os.close(claimed)
        return self.process.wait()

    def checkpoint(self) -> Any:
        """Lets the worker save, and gives submitit the job to requeue."""
        import submitit

        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        again = Work(self.arguments, self.log, self.claim_file)
        return submitit.helpers.DelayedSubmission(again)


class SlurmJob:
    """A job in the cluster's queue."""

    def __init__(self, trial: Trial, job: Any, log: Path) -> None:
        self.trials: Sequence[Trial] = (trial,)
        self.job, self._log = job, log
        self._error = ""

    def poll(self) -> int | None:
        """The worker's exit code, or None while the job waits or runs."""
        if not self.job.done():
            return None
        try:
            return int(self.job.result())
        except Exception as error:  # submitit raises many kinds for a job that was lost
            self._error = " ".join(str(error).split())[:200]
            return 1

    def stop(self) -> None:
        """Cancels it: SLURM sends SIGTERM first, and the worker saves."""
        self.job.cancel(check=False)

    def why(self, trial: Trial) -> str:
        """The worker's last words, or what SLURM says of the job."""
        return last_words(self._log) or self._error


class Slurm:
    """Jobs of a SLURM cluster; trials that are begun together are one array."""

    detached = True

    def __init__(
        self, folder: SweepFolder, capacity: int, at_a_time: int, options: SlurmOptions, name: str
    ) -> None:
        self.capacity = capacity
        self._folder = folder
        self._jobs = folder.path / "slurm"
        self._submitit = _import_submitit()
        try:
            self._executor = self._submitit.SlurmExecutor(
                self._jobs / "%j", max_num_timeout=options.requeues
            )
        except RuntimeError as error:
            raise UsageError(f"no SLURM cluster here: {error}") from None
        asked: dict[str, Any] = {
            "job_name": name,
            "time": options.minutes,
            "mem": f"{options.memory_gb}GB",
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": options.cpus,
            "array_parallelism": at_a_time,
            "signal_delay_s": 120,
        }
        for field in ("partition", "account", "constraint"):
            if getattr(options, field) is not None:
                asked[field] = getattr(options, field)
        if options.gpus:
            asked["gpus_per_node"] = options.gpus
        self._executor.update_parameters(**asked)

    def start(self, groups: Sequence[Sequence[Trial]]) -> list[Job]:
        """Follows the jobs that an earlier launcher submitted, and submits the others.

        Every trial has a job of its own.
        """
        trials = [trial for group in groups for trial in group]
        followed = {trial.hash: job for trial in trials if (job := self._follow(trial)) is not None}
        new = [trial for trial in trials if trial.hash not in followed]
        if new:
            with self._executor.batch():
                submitted = [self._executor.submit(self._work(trial)) for trial in new]
            for trial, job in zip(new, submitted, strict=True):
                write_atomically(self._note(trial), json.dumps({"job": job.job_id}))
                followed[trial.hash] = job
        return [SlurmJob(trial, followed[trial.hash], self._folder.log(trial)) for trial in trials]

    def _work(self, trial: Trial) -> Work:
        arguments = command(self._folder, trial)
        folder = self._folder
        return Work(arguments, folder.log(trial).absolute(), folder.claim_file(trial).absolute())

    def _note(self, trial: Trial) -> Path:
        return self._jobs / f"{trial.hash}.json"

    def _follow(self, trial: Trial) -> Any:
        """The trial's job if it still waits or runs."""
        try:
            number = json.loads(self._note(trial).read_text())["job"]
        except FileNotFoundError:
            return None
        job = self._submitit.SlurmJob(folder=self._jobs / "%j", job_id=number)
        return None if job.done(force_check=True) else job


def _import_submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise UsageError("SLURM needs submitit: pip install -e '.[slurm]'") from None
    return submitit
