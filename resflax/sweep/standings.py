"""The states of a sweep's trials, and their summary for people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from resflax.errors import TrainingError
from resflax.sweep.trials import Trial


class TrialState(Enum):
    """Whether a trial waits or runs, or how it ended."""

    WAITING = "waiting"
    RUNNING = "running"
    ELSEWHERE = "running elsewhere"
    DONE = "done"
    FAILED = "failed"
    PRUNED = "pruned"


SETTLED = (TrialState.DONE, TrialState.FAILED, TrialState.PRUNED)
"""States that are final: the launcher does not run such a trial again."""


@dataclass
class Standing:
    """What the launcher knows about a trial."""

    trial: Trial
    state: TrialState = TrialState.WAITING
    reason: str = ""
    """Why the trial failed or was pruned."""
    ran: bool = False
    """Whether this launcher started the trial."""
    deaths: list[int] = field(default_factory=list)
    """Steps at which the trial's workers were killed."""


def count_states(standings: Iterable[Standing]) -> str:
    """The number of trials in each state that occurs, as text: `3 done, 1 failed`."""
    states = [standing.state for standing in standings]
    return ", ".join(f"{states.count(s)} {s.value}" for s in TrialState if s in states)


def summary_line(standings: Sequence[Standing]) -> str:
    """A line that says how the trials ended, and how many of them this launcher ran."""
    ran = sum(standing.ran for standing in standings)
    return f"{len(standings)} trials: {count_states(standings)}; {ran} of them were run now"


def raise_failures(standings: Sequence[Standing]) -> None:
    """Raises `TrainingError` with the name and the reason of every trial that failed."""
    failed = [standing for standing in standings if standing.state is TrialState.FAILED]
    if failed:
        reasons = "; ".join(f"{x.trial.hash} ({x.trial.label}): {x.reason}" for x in failed)
        raise TrainingError(f"{len(failed)} of {len(standings)} trials failed: {reasons}")
