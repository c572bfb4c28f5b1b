"""The launcher, which keeps an executor busy until every trial of a sweep is settled.

Everything it knows is in the sweep folder, so it can be killed at any time and started again. A
trial with a result is done. The launcher waits for trials that another living process runs, and
starts or continues all others. So several launchers share the trials of a sweep: each trial is run
by one of them, and if it fails, the others do not try it again.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable

from resflax.errors import Interrupted
from resflax.locks import take_lock
from resflax.sweep.executors import Executor, Job
from resflax.sweep.queues import Queue
from resflax.sweep.standings import SETTLED, Standing, TrialState
from resflax.sweep.sweep_folder import SweepFolder
from resflax.sweep.trial_progress import read_trial_progress
from resflax.sweep.trials import Trial
from resflax.terminal.interruption import Interruption

POLL_SECONDS = 0.2
DEATHS = 3
"""A trial has failed once its workers were killed this many times at the same step.

Signals that the launcher sent itself do not count."""


class Launcher:
    """One session of a sweep.

    Args:
      folder: the sweep's folder.
      queue: hands out the trials.
      executor: runs the trials.
      show: is called repeatedly with the standings of all trials.
      say: is called with a line of text when a trial's state changes.
    """

    def __init__(
        self,
        folder: SweepFolder,
        queue: Queue,
        executor: Executor,
        show: Callable[[Iterable[Standing]], None] = lambda standings: None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder, self.queue, self.executor = folder, queue, executor
        self.show, self.say = show, say
        self.standings: dict[str, Standing] = {}
        """The standing of each trial, by the trial's hash."""
        self._jobs: list[Job] = []
        self._pruned: set[str] = set()
        """Hashes of the trials that were stopped because of their results."""
        self._earlier_ends = folder.read_ends()

    def run(self) -> list[Standing]:
        """Runs until every trial is settled, and returns the standings.

        Raises `Interrupted` on a signal of `interruption.SIGNALS`, after the workers have saved and
        ended.
        """
        self.folder.add(list(self.queue.known_trials()))
        self._add_standings()
        with contextlib.closing(self.executor), Interruption() as interruption:
            while True:
                if interruption:
                    assert interruption.signal is not None
                    self._leave(interruption.signal)
                self._check_jobs()
                self._start_jobs()
                self._add_standings()
                self.show(self.standings.values())
                if self._all_settled():
                    return list(self.standings.values())
                time.sleep(POLL_SECONDS)

    def _all_settled(self) -> bool:
        return not self._jobs and all(s.state in SETTLED for s in self.standings.values())

    def _add_standings(self) -> None:
        """Adds standings for the trials that the queue has made since the last call."""
        for trial in self.queue.known_trials():
            if trial.hash not in self.standings:
                end = self.queue.earlier_end(trial)
                state = TrialState.WAITING if end is None else TrialState(end)
                self.standings[trial.hash] = Standing(trial, state)

    def _start_jobs(self) -> None:
        """Starts as many jobs as the executor has room for."""
        groups: list[list[Trial]] = []
        room = self.executor.capacity - len(self._jobs)
        elsewhere: list[Trial] = []
        while len(groups) < room and (group := self.queue.take()):
            new = [trial for trial in group if trial.hash not in self.standings]
            if new:  # before they are looked at, because it may have to wait for other launchers
                self.folder.add(new)
            ready = []
            for trial in group:
                self.standings.setdefault(trial.hash, Standing(trial))
                if self._settle_if_ended(trial):
                    continue
                if self._runs_elsewhere(trial):
                    self._set_state(trial, TrialState.ELSEWHERE)
                    elsewhere.append(trial)
                elif not self._settle_if_ended(trial):  # it may have ended just now
                    ready.append(trial)
            if ready:
                groups.append(ready)
        starting = [trial for group in groups for trial in group]
        if starting:
            for job in self.executor.start(groups):
                self._jobs.append(job)
                for trial in job.trials:
                    self.folder.clear_end(trial)
                    self.standings[trial.hash].ran = True
                    self._set_state(trial, TrialState.RUNNING)
        running = {trial.hash for job in self._jobs for trial in job.trials}
        for trial in (*elsewhere, *(t for t in starting if t.hash not in running)):
            self.queue.give_back(trial)

    def _settle_if_ended(self, trial: Trial) -> bool:
        """Settles a trial that is done, or that has failed or was pruned in another launcher."""
        if self.folder.is_done(trial):
            self._settle(trial, TrialState.DONE)
            return True
        end = self.folder.read_end(trial)
        # How a trial ended before this launcher started does not count: it is tried again.
        if end is None or end == self._earlier_ends.get(self.folder.run(trial).path):
            return False
        self.queue.settle(trial, end["state"])
        self._set_state(trial, TrialState(end["state"]), end["why"])
        return True

    def _runs_elsewhere(self, trial: Trial) -> bool:
        """Whether a process of another launcher runs the trial."""
        lock = take_lock(self.folder.lock_file(trial))
        if lock is None:
            return True
        os.close(lock)
        return False

    def _check_jobs(self) -> None:
        """Settles the trials of jobs that have ended, and stops trials with bad results."""
        for job in list(self._jobs):
            code = job.poll()
            if code is None:
                # A queue that stops trials hands out one trial at a time, so the job has no other.
                for trial in job.trials:
                    if trial.hash not in self._pruned and self.queue.should_stop(trial):
                        self._pruned.add(trial.hash)
                        job.stop()
                continue
            self._jobs.remove(job)
            for trial in job.trials:
                self._after_worker(job, trial, code)
            job.close()

    def _after_worker(self, job: Job, trial: Trial, code: int) -> None:
        """Settles a trial whose worker ended with this exit code, or puts it back in the queue."""
        if self.folder.is_done(trial):
            self._settle(trial, TrialState.DONE)
        elif trial.hash in self._pruned:
            reason = "its validation error was too high compared with the other trials"
            self._settle(trial, TrialState.PRUNED, reason)
        elif code < 0 or code > 128:
            deaths = self.standings[trial.hash].deaths
            deaths.append(read_trial_progress(self.folder.run(trial), trial.experiment).step)
            if deaths.count(deaths[-1]) >= DEATHS:
                reason = f"killed {DEATHS} times at step {deaths[-1]}"
                self._settle(trial, TrialState.FAILED, reason)
            else:
                self._set_state(trial, TrialState.WAITING)
                self.queue.give_back(trial)
        else:
            self._settle(trial, TrialState.FAILED, job.failure_reason(trial))

    def _settle(self, trial: Trial, state: TrialState, reason: str = "") -> None:
        if state is not TrialState.DONE:
            self.folder.record_end(trial, state.value, reason)
        self.queue.settle(trial, state.value)
        self._set_state(trial, state, reason)

    def _set_state(self, trial: Trial, state: TrialState, reason: str = "") -> None:
        standing = self.standings[trial.hash]
        if standing.state is state:
            return
        standing.state, standing.reason = state, reason
        if state is TrialState.DONE and not standing.ran:
            return  # it was done before this launcher started
        self.say(f"{trial.hash}  {trial.label}: {state.value}{f': {reason}' if reason else ''}")

    def _leave(self, signal: int) -> None:
        """Stops the workers, waits until they have saved and ended, and raises `Interrupted`.

        Detached jobs keep running.
        """
        if self.executor.detached:
            raise Interrupted(
                signal, "stopped; the jobs keep running, and the same command follows them"
            )
        for job in self._jobs:
            job.stop()
        while any(job.poll() is None for job in self._jobs):
            self.show(self.standings.values())
            time.sleep(POLL_SECONDS)
        for job in self._jobs:
            job.close()
        raise Interrupted(signal, "stopped, all trials saved; the same command continues")
