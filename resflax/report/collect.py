"""Reads the runs in folders."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.files import reason_of
from resflax.runs import metrics
from resflax.runs.run_folder import RunFolder

RunState = Literal["finished", "unfinished", "failed", "pruned"]

_DEEPEST = 3
"""Number of levels of folders that are searched for runs: a folder of sweeps, a sweep, `trials`."""


@dataclass(frozen=True)
class SweepRecord:
    """A sweep, as read from its folder."""

    path: Path
    """The sweep folder."""
    experiment: Experiment | None
    """The experiment that the trials vary; None if it cannot be read."""
    fields: tuple[str, ...]
    """Dotted names of the fields that vary."""
    searched: bool
    """Whether the sweep is a search."""
    trials: int
    """Number of trials that the sweep lists."""


@dataclass(frozen=True)
class RunRecord:
    """A run, as read from its folder."""

    path: Path
    """The run folder."""
    experiment: Experiment
    """The run's experiment."""
    lines: tuple[dict[str, Any], ...]
    """The lines of metrics.jsonl."""
    result: dict[str, Any] | None
    """The content of result.json; None unless the run is finished."""
    state: RunState
    why: str = ""
    """Why the run failed or was pruned; empty if there is no such reason."""
    variant: str | None = None
    """The variant's name, if the run belongs to a sweep that names its variants."""
    sweep: SweepRecord | None = None
    """The sweep to which the run belongs, if any."""
    number: int | None = None
    """The run's place in its sweep's list of trials, from 0 on."""

    @property
    def test_error(self) -> float | None:
        """The test error at the end of training, as a fraction; None unless it was measured."""
        return None if self.result is None else self.result.get("test_error")

    @property
    def images_per_second(self) -> float | None:
        """The median speed over the training lines of the log; None if no line has a speed."""
        rates = sorted(
            line["images_per_second"]
            for line in self.lines
            if line["split"] == "train" and line.get("images_per_second")
        )
        return rates[len(rates) // 2] if rates else None

    @property
    def steps_done(self) -> int:
        """The step of the log's last line; 0 if there are no lines."""
        return self.lines[-1]["step"] if self.lines else 0


def collect_runs(
    paths: Sequence[Path], note: Callable[[str], None] = lambda text: None
) -> list[RunRecord]:
    """Reads all runs in the given folders; a run that is reached twice is returned once.

    Args:
      paths: run folders, sweep folders, or folders that contain these.
      note: is called with a line for each run that cannot be read, which is left out.

    Raises:
      UsageError: if a folder does not exist or has no runs, or if no run at all can be read.
    """
    runs: dict[Path, RunRecord] = {}
    faults: list[str] = []
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} cannot be reported: there is no such folder")
        faults_before = len(faults)
        found = list(_run_folders_below(path, faults))
        if not found and len(faults) == faults_before:
            raise UsageError(f"{path} has no runs: no experiment.json in it or below it")
        for folder in found:
            try:
                runs[folder.resolve()] = _read_run(folder)
            except (UsageError, OSError) as error:
                faults.append(str(error))
    if not runs:
        raise UsageError(faults[0])
    for fault in dict.fromkeys(faults):
        note(fault)
    return list(runs.values())


def _run_folders_below(path: Path, faults: list[str], depth: int = _DEEPEST) -> Iterator[Path]:
    """The run folders in a folder; what cannot be searched is added to the faults."""
    try:
        if (path / "experiment.json").is_file():
            yield path
            return
        inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        faults.append(f"{path} cannot be read: {reason_of(error)}")
        return
    if depth > 0:
        for folder in inner:
            yield from _run_folders_below(folder, faults, depth - 1)


def _read_run(path: Path) -> RunRecord:
    folder = RunFolder(path)
    result = folder.read_result()
    sweep = path.parent.parent
    trials = _read_json_object(sweep / "sweep.json").get("trials", {})
    trial = trials.get(path.name, {})
    ended = _read_json_object(sweep / "ended" / f"{path.name}.json") if trial else {}
    state: RunState = "unfinished"
    if result is not None:
        state = "finished" if result.get("status", "finished") == "finished" else "failed"
    elif ended.get("state") in ("failed", "pruned"):
        state = ended["state"]
    return RunRecord(
        path=path,
        experiment=folder.read_experiment(),
        lines=tuple(metrics.read_lines(folder.metrics)),
        result=result if state == "finished" else None,
        state=state,
        why=str(ended.get("why", "")) if state != "finished" else "",
        variant=trial.get("name"),
        sweep=_read_sweep(sweep, trials) if trial else None,
        number=list(trials).index(path.name) if trial else None,
    )


def _read_sweep(path: Path, trials: dict[str, Any]) -> SweepRecord:
    fields = dict.fromkeys(name for trial in trials.values() for name in trial.get("fields", {}))
    searched = (path / "search.journal").is_file()
    return SweepRecord(path, None, tuple(fields), searched, len(trials))


def _read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if the file does not exist or has no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
