"""Reads the runs in folders."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.files import reason_of
from resflax.report.run_cache import RunCache
from resflax.report.sweep_records import ListedSweep, SweepRecord, read_json_object, read_sweep
from resflax.runs import metrics
from resflax.runs.run_folder import RunFolder
from resflax.text import path_text

RunState = Literal["finished", "unfinished", "failed", "pruned"]

_DEEPEST = 3
"""Number of levels of folders that are searched for runs: a folder of sweeps, a sweep, `trials`."""

_NEEDED = ("params", "macs", "seconds")
"""Numbers that the result of every finished run has."""


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
    """The sweep that lists the run as a trial, if there is one."""
    number: int | None = None
    """The trial's place in the sweep's list, from 0."""
    initialized_from: Mapping[str, Any] | None = None
    """Where the initial weights come from, as the run's environment.json notes it."""

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
    paths: Sequence[Path],
    note: Callable[[str], None] = lambda text: None,
    cache: RunCache | None = None,
) -> list[RunRecord]:
    """Reads all runs in the given folders; a run that is reached twice is returned once.

    Args:
      paths: run folders, sweep folders, or folders that contain these.
      note: is called with a line for each run that cannot be read, which is left out, and for each
        sweep of which nothing has begun.
      cache: keeps what is read, if the same runs are to be collected again.

    Raises:
      UsageError: if a folder does not exist or has no runs, or if no run at all can be read.
    """
    cache = RunCache() if cache is None else cache
    runs: dict[Path, RunRecord] = {}
    sweeps: dict[Path, ListedSweep | None] = {}
    faults: list[str] = []
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} cannot be reported: there is no such folder")
        faults_before = len(faults)
        found = list(_run_folders_below(path, faults))
        if not found and (listed := read_sweep(path, cache)) is not None:
            faults.append(f"none of the {listed.record.trials} trials of {path} has begun")
        elif not found and len(faults) == faults_before:
            raise UsageError(f"{path} has no runs: no experiment.json in it or below it")
        for folder in found:
            try:
                resolved = folder.resolve()
                if resolved not in runs:
                    trial = _find_trial(folder, resolved, sweeps, cache)
                    runs[resolved] = _read_run(folder, trial, cache)
            except UsageError as error:
                faults.append(str(error))
            except OSError as error:
                faults.append(f"{error.filename or folder} cannot be read: {reason_of(error)}")
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


def waiting_lines(runs: Sequence[RunRecord]) -> list[str]:
    """A line for each sweep of the runs that lists trials which have not begun."""
    sweeps = {run.sweep.path: run.sweep for run in runs if run.sweep is not None}
    return [
        f"{sweep.waiting} of {sweep.trials} trials of {path_text(sweep.path)} "
        f"{'has' if sweep.waiting == 1 else 'have'} not begun"
        for sweep in sweeps.values()
        if sweep.waiting
    ]


@dataclass(frozen=True)
class _Trial:
    """A run folder as a sweep lists it."""

    sweep: SweepRecord
    number: int
    variant: str | None
    ended: Path
    """The file that says why the trial ended without a result."""


def _find_trial(
    path: Path, resolved: Path, sweeps: dict[Path, ListedSweep | None], cache: RunCache
) -> _Trial | None:
    """The sweep that lists a run folder, which is looked for where its links lead as well."""
    for place in dict.fromkeys((path.absolute(), resolved)):
        folder = place.parent.parent
        shown = path.parent.parent  # as the user named it, unless it ends too early
        if shown.absolute() == folder:
            folder = shown
        key = folder.resolve()
        if key not in sweeps:
            sweeps[key] = read_sweep(folder, cache)
        if (sweep := sweeps[key]) is not None and place.name in sweep.trials:
            name = sweep.trials[place.name].get("name")
            return _Trial(
                sweep.record,
                sweep.numbers[place.name],
                name if isinstance(name, str) else None,
                folder / "ended" / f"{place.name}.json",
            )
    return None


def _read_run(path: Path, trial: _Trial | None, cache: RunCache) -> RunRecord:
    folder = RunFolder(path)
    experiment = cache.read((folder.experiment, folder.environment), folder.read_experiment)
    initialized_from = None
    if experiment.initialize_from is not None:
        environment = cache.read((folder.environment,), folder.first_environment)
        initialized_from = environment.get("initialized_from")
    result = cache.read((folder.result,), folder.read_result)
    ended = {}
    if trial is not None:
        ended = cache.read((trial.ended,), lambda: read_json_object(trial.ended))
    state: RunState = "unfinished"
    if result is not None:
        state = "finished" if result.get("status", "finished") == "finished" else "failed"
        missing = [name for name in _NEEDED if result.get(name) is None]
        if state == "finished" and missing:
            raise UsageError(f"{folder.result} does not describe a result: it has no {missing[0]}")
    elif ended.get("state") in ("failed", "pruned"):
        state = ended["state"]
    why = ended.get("why")
    return RunRecord(
        path=path,
        experiment=experiment,
        lines=cache.read((folder.metrics,), lambda: tuple(metrics.read_lines(folder.metrics))),
        result=result if state == "finished" else None,
        state=state,
        why=why if state != "finished" and isinstance(why, str) else "",
        variant=None if trial is None else trial.variant,
        sweep=None if trial is None else trial.sweep,
        number=None if trial is None else trial.number,
        initialized_from=initialized_from,
    )
