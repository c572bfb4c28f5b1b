"""Finding runs in folders, and sorting them into groups that differ in the seed alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resflax.errors import UsageError
from resflax.experiment import Experiment, flat_json
from resflax.training import metrics
from resflax.training.run_folder import RunFolder

State = Literal["finished", "unfinished", "failed", "pruned"]

# Fields that do not change what is learned, or only where it is kept.
_NOT_SHOWN = (
    "seed",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "parallel",
    "data.data_dir",
    "initialize_from",
)


@dataclass(frozen=True)
class Run:
    """One run folder, read."""

    path: Path
    experiment: Experiment
    lines: tuple[dict[str, Any], ...]
    """Of metrics.jsonl."""
    result: dict[str, Any] | None
    state: State
    why: str = ""
    """Of a run that failed or was stopped early."""
    variant: str | None = None
    """Its name in a sweep that names its variants."""

    @property
    def test_error(self) -> float | None:
        """Of the finished run, at its end: a fraction."""
        return None if self.result is None else self.result.get("test_error")

    @property
    def images_per_second(self) -> float | None:
        """The median over the lines of the training log."""
        rates = sorted(
            line["images_per_second"]
            for line in self.lines
            if line["split"] == "train" and line.get("images_per_second")
        )
        return rates[len(rates) // 2] if rates else None

    @property
    def steps_done(self) -> int:
        """Of the last line."""
        return self.lines[-1]["step"] if self.lines else 0


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone."""

    label: str
    fields: dict[str, Any]
    """What sets it apart from the other groups, by dotted field."""
    runs: tuple[Run, ...]

    @property
    def finished(self) -> tuple[Run, ...]:
        """Those that have a result."""
        return tuple(run for run in self.runs if run.result is not None)

    @property
    def experiment(self) -> Experiment:
        """Of the first run."""
        return self.runs[0].experiment


def collect(paths: Sequence[Path]) -> list[Run]:
    """All runs in the folders: runs, sweeps, or folders of either.

    Raises `UsageError` for a folder that has none, or an experiment.json that cannot be read.
    """
    runs: dict[Path, Run] = {}
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"{path} cannot be reported: there is no such folder")
        found = list(_runs_below(path))
        if not found:
            raise UsageError(f"{path} has no runs: no experiment.json in it or below it")
        runs |= {run.path.resolve(): run for run in found}
    return list(runs.values())


def _runs_below(path: Path, depth: int = 3) -> list[Run]:
    if (path / "experiment.json").is_file():
        return [_read(path)]
    if depth == 0:
        return []
    return [
        run
        for folder in sorted(path.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
        for run in _runs_below(folder, depth - 1)
    ]


def _read(path: Path) -> Run:
    folder = RunFolder(path)
    result = folder.read_result()
    sweep = path.parent.parent
    declared = _json(sweep / "sweep.json").get("trials", {}).get(path.name, {})
    ended = _json(sweep / "ended" / f"{path.name}.json") if declared else {}
    state: State = "unfinished"
    if result is not None:
        state = "finished" if result.get("status", "finished") == "finished" else "failed"
    elif ended.get("state") in ("failed", "pruned"):
        state = ended["state"]
    return Run(
        path=path,
        experiment=folder.read_experiment(),
        lines=tuple(metrics.read(folder.metrics)),
        result=result if state == "finished" else None,
        state=state,
        why=str(ended.get("why", "")) if state != "finished" else "",
        variant=declared.get("name"),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def group(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order of their fields, each labelled by the fields that vary.

    A field that follows from those before it (the gate's bias from the shortcut) is left out.
    """
    flat = [flat_json(run.experiment) for run in runs]
    names = [name for name in flat[0] if name not in ("name", *_NOT_SHOWN)] if flat else []
    names += sorted({name for one in flat for name in one} - {*names, "name", *_NOT_SHOWN})
    names += ["name"]
    kept: list[str] = []
    classes: list[tuple[str, ...]] = [()] * len(runs)
    for name in names:
        finer = [(*c, _key(one.get(name))) for c, one in zip(classes, flat, strict=True)]
        if len(set(finer)) > len(set(classes)):
            classes = finer
            kept.append(name)
    members: dict[tuple[str, ...], list[int]] = {}
    for i, c in enumerate(classes):
        members.setdefault(c, []).append(i)
    groups = []
    for indices in members.values():
        fields = {name: flat[indices[0]].get(name) for name in kept}
        runs_here = tuple(sorted((runs[i] for i in indices), key=lambda r: r.experiment.seed))
        groups.append(Group(_label(runs_here, fields), fields, runs_here))
    return sorted(groups, key=lambda g: [_order(value) for value in g.fields.values()])


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def _label(runs: Sequence[Run], fields: dict[str, Any]) -> str:
    variants = {run.variant for run in runs}
    if len(variants) == 1 and (variant := variants.pop()) is not None:
        return variant
    shown = [_part(name, value) for name, value in fields.items() if value is not None]
    return ", ".join(shown) or runs[0].experiment.name


def _part(name: str, value: Any) -> str:
    if name in ("name", "model.type", "data.name"):
        return str(value)
    return f"{name.rpartition('.')[2].replace('_', ' ')} {value}"
