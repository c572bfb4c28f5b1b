"""Follows runs while they train, and calls a function whenever something has changed."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resflax.report.sweep_records import read_json_object

POLL_SECONDS = 5.0
"""The least time between two looks at the folders."""

REST = 5.0
"""The least time between two calls, as a multiple of the time that the first of them took."""

_DEEPEST = 3
"""Number of levels of folders between a folder that is watched and a run folder in it."""

_QUIET_SECONDS = 60.0
"""A search whose trials have all ended gets new ones, unless it was quiet for so long."""


@dataclass(frozen=True)
class Look:
    """What there was in the folders at one moment."""

    files: frozenset[tuple[str, int, int]]
    """Path, time of the last change (ns) and size of each file of a run or a sweep."""
    ended: bool
    """Whether all runs and all trials of sweeps have ended, those included that have not begun."""


def watch(folders: Sequence[Path], renew: Callable[[bool], None]) -> None:
    """Calls `renew` at once and after every change in the folders, until all runs have ended.

    A run has ended if it has a result, or if its sweep notes why there is none. Trials that a sweep
    lists and that have not begun have not ended. In a folder without runs, they are waited for.

    Args:
      folders: run folders, sweep folders, or folders that contain these.
      renew: is called with True, and at the end, for the last time, with False.
    """
    before: Look | None = None
    while True:
        look = look_at(folders, time.time())
        began = time.monotonic()
        if look != before:
            renew(not look.ended)
        if look.ended:
            return
        before = look
        time.sleep(max(POLL_SECONDS, REST * (time.monotonic() - began)))


def look_at(folders: Sequence[Path], now: float) -> Look:
    """Looks at the files of all runs and sweeps in the folders.

    Args:
      folders: run folders, sweep folders, or folders that contain these.
      now: the present time, in seconds since 1970.
    """
    found: dict[Path, tuple[int, int]] = {}
    for folder in folders:
        for depth in range(_DEEPEST + 1):
            for path in folder.glob("*/" * depth + "*.json*"):
                try:
                    status = path.stat()
                except OSError:  # it was replaced or removed just now
                    continue
                found[path] = status.st_mtime_ns, status.st_size
    runs = {path.parent for path in found if path.name == "experiment.json"}
    for path in found:
        if path.name == "sweep.json":
            runs |= {path.parent / "trials" / name for name in _listed(path)}
    ended = bool(runs) and all(map(_has_ended, runs))
    if any(os.path.exists(run.parent.parent / "search.journal") for run in runs):
        latest = max(changed for changed, _ in found.values())
        ended = ended and now - latest / 1e9 > _QUIET_SECONDS
    return Look(frozenset((str(path), *status) for path, status in found.items()), ended)


def _listed(declaration: Path) -> list[str]:
    """The names of the run folders of a sweep's trials; none if its file cannot be read."""
    trials = read_json_object(declaration).get("trials")
    return list(trials) if isinstance(trials, dict) else []


def _has_ended(run: Path) -> bool:
    ends = run / "result.json", run.parent.parent / "ended" / f"{run.name}.json"
    return any(map(os.path.exists, ends))  # which takes names that no file can have
