"""What is to be run next: the trials of a grid in order. A search's are in `sweep.search`."""

from collections.abc import Sequence
from typing import Protocol

from resflax.sweep.groups import form_groups
from resflax.sweep.trials import Trial


class Queue(Protocol):
    """Gives out trials, and is told what became of them."""

    def known(self) -> Sequence[Trial]:
        """Trials there are so far, in order."""

    def before(self, trial: Trial) -> str | None:
        """`done`, `failed` or `pruned`, if it is known from before and not to be run again."""

    def take(self) -> Sequence[Trial]:
        """The next trials that train together, mostly one; none if there is none to begin now."""

    def give_back(self, trial: Trial) -> None:
        """The trial is to be begun (again) later."""

    def watch(self, trial: Trial) -> bool:
        """Whether a running trial is to be stopped, for its results are too bad."""

    def settle(self, trial: Trial, state: str) -> None:
        """The trial is `done`, `failed` or `pruned`."""


class GridQueue:
    """All trials of a grid, each until it is settled; at most `together` train together (0: as
    many as can)."""

    def __init__(self, trials: Sequence[Trial], together: int = 1) -> None:
        self._trials = trials
        self._waiting = list(trials)
        groups = form_groups(trials, together)
        self._group = {trial.hash: group for group in groups for trial in group}

    def known(self) -> Sequence[Trial]:
        """All of them."""
        return self._trials

    def before(self, trial: Trial) -> str | None:
        """All are taken, and those that failed are tried again."""
        return None

    def take(self) -> Sequence[Trial]:
        """The first that waits, and all of its group that do."""
        if not self._waiting:
            return ()
        group = self._group[self._waiting[0].hash]
        taken = [trial for trial in self._waiting if trial in group]
        self._waiting = [trial for trial in self._waiting if trial not in group]
        return taken

    def give_back(self, trial: Trial) -> None:
        """It waits behind the others."""
        self._waiting.append(trial)

    def watch(self, trial: Trial) -> bool:
        """A grid's trials are all run to their ends."""
        return False

    def settle(self, trial: Trial, state: str) -> None:
        """Nothing else depends on it."""
