"""What is to be run next: the trials of a grid in order. A search's are in `sweep.search`."""

from collections.abc import Sequence
from typing import Protocol

from resflax.sweep.trials import Trial


class Queue(Protocol):
    """Gives out trials, and is told what became of them."""

    def known(self) -> Sequence[Trial]:
        """Trials there are so far, in order."""

    def before(self, trial: Trial) -> str | None:
        """`done`, `failed` or `pruned`, if it is known from before and not to be run again."""

    def take(self) -> Trial | None:
        """The next trial, or None if there is none to begin now."""

    def give_back(self, trial: Trial) -> None:
        """The trial is to be begun (again) later."""

    def watch(self, trial: Trial) -> bool:
        """Whether a running trial is to be stopped, for its results are too bad."""

    def settle(self, trial: Trial, state: str) -> None:
        """The trial is `done`, `failed` or `pruned`."""


class GridQueue:
    """All trials of a grid, each until it is settled."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = trials
        self._waiting = list(trials)

    def known(self) -> Sequence[Trial]:
        """All of them."""
        return self._trials

    def before(self, trial: Trial) -> str | None:
        """All are taken, and those that failed are tried again."""
        return None

    def take(self) -> Trial | None:
        """The first that waits."""
        return self._waiting.pop(0) if self._waiting else None

    def give_back(self, trial: Trial) -> None:
        """It waits behind the others."""
        self._waiting.append(trial)

    def watch(self, trial: Trial) -> bool:
        """A grid's trials are all run to their ends."""
        return False

    def settle(self, trial: Trial, state: str) -> None:
        """Nothing else depends on it."""
