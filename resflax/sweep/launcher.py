"""The launcher: keeps its executor busy until every trial is settled.

All it knows is in the sweep folder, so it may be killed at any time and started again: a trial
with a result is done, one that a living process runs is waited for, all others are begun or
continued.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum

from resflax.errors import Interrupted
from resflax.sweep.executors import Executor, Job
from resflax.sweep.folder import SweepFolder, claim
from resflax.sweep.progress import read_progress
from resflax.sweep.queues import Queue
from resflax.sweep.trials import Trial
from resflax.training.interruption import Interruption

POLL_SECONDS = 0.2
DEATHS = 3  # of a worker at one step, by signals that nobody here sent, until the trial has failed


class State(Enum):
    """What a trial is doing."""

    WAITING = "waiting"
    RUNNING = "running"
    ELSEWHERE = "running elsewhere"
    DONE = "done"
    FAILED = "failed"
    PRUNED = "pruned"


SETTLED = (State.DONE, State.FAILED, State.PRUNED)


@dataclass
class Standing:
    """What the launcher knows of a trial."""

    trial: Trial
    state: State = State.WAITING
    why: str = ""
    ran: bool = False
    """Whether this launcher began it."""
    deaths: list[int] = field(default_factory=list)
    """Steps at which its workers were killed."""


class Launcher:
    """One session of a sweep."""

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
        self._jobs: list[Job] = []
        self._stopped: set[str] = set()
        """Trials that were told to stop because they fell behind."""

    def run(self) -> list[Standing]:
        """Runs until every trial is settled; returns where they stand.

        Raises `Interrupted` on Ctrl-C or SIGTERM, after the workers have saved and ended.
        """
        with Interruption() as interruption:
            while True:
                if interruption:
                    assert interruption.signal is not None
                    self._leave(interruption.signal)
                self._poll()
                self._fill()
                self._note_new()
                self.show(self.standings.values())
                if self._all_settled():
                    return list(self.standings.values())
                time.sleep(POLL_SECONDS)

    def _all_settled(self) -> bool:
        return not self._jobs and all(s.state in SETTLED for s in self.standings.values())

    def _note_new(self) -> None:
        for trial in self.queue.known():
            if trial.hash not in self.standings:
                before = self.queue.before(trial)
                state = State.WAITING if before is None else State(before)
                self.standings[trial.hash] = Standing(trial, state)

    def _fill(self) -> None:
        """Begins as many jobs as there is room for."""
        groups: list[list[Trial]] = []
        room = self.executor.capacity - len(self._jobs)
        passed: list[Trial] = []
        while len(groups) < room and (group := self.queue.take()):
            free = []
            for trial in group:
                self.standings.setdefault(trial.hash, Standing(trial))
                if self.folder.is_done(trial):
                    self._settle(trial, State.DONE)
                elif self._runs_elsewhere(trial):
                    self._change(trial, State.ELSEWHERE)
                    passed.append(trial)
                else:
                    free.append(trial)
            groups += [free] if free else []
        taken = [trial for group in groups for trial in group]
        if taken:
            self.folder.add(taken)
            for trial in taken:
                self.folder.forget_end(trial)
            for job in self.executor.start(groups):
                self._jobs.append(job)
                for trial in job.trials:
                    self.standings[trial.hash].ran = True
                    self._change(trial, State.RUNNING)
        running = {trial.hash for job in self._jobs for trial in job.trials}
        for trial in (*passed, *(t for t in taken if t.hash not in running)):
            self.queue.give_back(trial)

    def _runs_elsewhere(self, trial: Trial) -> bool:
        """Whether another launcher's worker has it."""
        claimed = claim(self.folder.claim_file(trial))
        if claimed is None:
            return True
        os.close(claimed)
        return False

    def _poll(self) -> None:
        for job in list(self._jobs):
            code = job.poll()
            if code is None:
                for trial in job.trials:  # one, where a queue watches: see scripts/sweep.py
                    if trial.hash not in self._stopped and self.queue.watch(trial):
                        self._stopped.add(trial.hash)
                        job.stop()
                continue
            self._jobs.remove(job)
            for trial in job.trials:
                self._judge(job, trial, code)

    def _judge(self, job: Job, trial: Trial, code: int) -> None:
        """What became of a trial whose worker has ended."""
        if self.folder.is_done(trial):
            self._settle(trial, State.DONE)
        elif trial.hash in self._stopped:
            self._settle(trial, State.PRUNED, "its validation error fell behind")
        elif code < 0 or code > 128:
            deaths = self.standings[trial.hash].deaths
            deaths.append(read_progress(self.folder.run(trial), trial.experiment).step)
            if deaths.count(deaths[-1]) >= DEATHS:
                self._settle(trial, State.FAILED, f"killed {DEATHS} times at step {deaths[-1]}")
            else:
                self._change(trial, State.WAITING)
                self.queue.give_back(trial)
        else:
            self._settle(trial, State.FAILED, job.why(trial))

    def _settle(self, trial: Trial, state: State, why: str = "") -> None:
        if state is not State.DONE:
            self.folder.end(trial, state.value, why)
        self.queue.settle(trial, state.value)
        self._change(trial, state, why)

    def _change(self, trial: Trial, state: State, why: str = "") -> None:
        standing = self.standings[trial.hash]
        if standing.state is state:
            return
        standing.state, standing.why = state, why
        if state is State.DONE and not standing.ran:
            return  # it was when we came
        self.say(f"{trial.hash}  {trial.label}: {state.value}{f': {why}' if why else ''}")

    def _leave(self, signal: int) -> None:
        """Ends the workers, which save, and then the launcher."""
        if self.executor.detached:
            raise Interrupted(signal, "stopped; the jobs go on, the same command follows them")
        for job in self._jobs:
            job.stop()
        while any(job.poll() is None for job in self._jobs):
            self.show(self.standings.values())
            time.sleep(POLL_SECONDS)
        raise Interrupted(signal, "stopped, all trials saved; the same command continues")
