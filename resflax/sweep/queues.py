"""The protocol of queues of trials, and the queue of a grid.

The queue of a search is in `sweep.search`.
"""

from collections.abc import Sequence
from typing import Protocol

from resflax.sweep.groups import form_groups
from resflax.sweep.trials import Trial


class Queue(Protocol):
    """Hands out trials to run, and is told how they end."""

    def known_trials(self) -> Sequence[Trial]:
        """The trials that exist so far, in order."""

    def earlier_end(self, trial: Trial) -> str | None:
        """How the trial ended before (`done`, `failed` or `pruned`), if it must not run again."""

    def take(self) -> Sequence[Trial]:
        """The next trials that train together, usually one; empty if none can be started now."""

    def give_back(self, trial: Trial) -> None:
        """Takes back a trial that must be started later, or started again."""

    def should_stop(self, trial: Trial) -> bool:
        """Whether a running trial must stop, because its results are too bad."""

    def settle(self, trial: Trial, state: str) -> None:
        """Notes that a trial has ended as `done`, `failed` or `pruned`."""


class GridQueue:
    """Hands out all trials of a grid, each until it is settled.

    Args:
      trials: the trials in order.
      group_size: the largest number of trials that train together; 0 sets no limit.
    """

    def __init__(self, trials: Sequence[Trial], group_size: int = 1) -> None:
        self._trials = trials
        self._waiting = list(trials)
        groups = form_groups(trials, group_size)
        self._group_of = {trial.hash: group for group in groups for trial in group}

    def known_trials(self) -> Sequence[Trial]:
        """All trials of the grid."""
        return self._trials

    def earlier_end(self, trial: Trial) -> str | None:
        """None, because every trial is handed out; trials that failed before are tried again."""
        return None

    def take(self) -> Sequence[Trial]:
        """The first waiting trial and all other waiting trials of its group."""
        if not self._waiting:
            return ()
        group = self._group_of[self._waiting[0].hash]
        taken = [trial for trial in self._waiting if trial in group]
        self._waiting = [trial for trial in self._waiting if trial not in group]
        return taken

    def give_back(self, trial: Trial) -> None:
        """Puts the trial after all other waiting trials."""
        self._waiting.append(trial)

    def should_stop(self, trial: Trial) -> bool:
        """False, because every trial of a grid runs to its end."""
        return False

    def settle(self, trial: Trial, state: str) -> None:
        """Does nothing, because no trial of a grid depends on another."""
