"""Reads what a sweep lists: its experiment, the fields that vary, and its trials."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from resflax.errors import UsageError
from resflax.experiment import Experiment, flat_json, from_json
from resflax.report.labels import value_key
from resflax.report.run_cache import RunCache
from resflax.runs.origins import NOT_COMPARED


@dataclass(frozen=True)
class SweepRecord:
    """A sweep, as read from its folder."""

    path: Path
    """The sweep folder."""
    experiment: Experiment | None
    """The experiment that the trials vary; None if it cannot be read."""
    fields: tuple[str, ...]
    """Dotted names of the fields in which the listed trials differ, apart from the seed and other
    fields that do not set groups apart. A part of the experiment that varies as a whole, such as
    the model, stands here as those of its fields that vary."""
    searched: bool
    """Whether it is a search."""
    trials: int
    """Number of trials that the sweep lists."""
    waiting: int = 0
    """Number of these trials that have not begun."""


@dataclass(frozen=True)
class ListedSweep:
    """A sweep with its list of trials."""

    record: SweepRecord
    trials: Mapping[str, Mapping[str, Any]]
    """What the sweep notes about each trial, by the name of its run folder and in their order."""

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Each trial's place in the list, from 0, by the name of its run folder."""
        return {name: number for number, name in enumerate(self.trials)}


def read_sweep(path: Path, cache: RunCache) -> ListedSweep | None:
    """Reads the sweep in a folder; None if the folder has no sweep.json that lists trials."""
    declaration = path / "sweep.json"
    declared = cache.read((declaration,), lambda: _read_declaration(declaration))
    if not declared.trials:
        return None
    runs = (path / "trials" / name / "experiment.json" for name in declared.trials)
    record = SweepRecord(
        path=path,
        experiment=declared.experiment,
        fields=declared.fields,
        searched=(path / "search.journal").exists(),
        trials=len(declared.trials),
        # Unlike Path.is_file, it takes names that no file can have.
        waiting=sum(not os.path.isfile(run) for run in runs),
    )
    return ListedSweep(record, declared.trials)


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if the file does not exist or has no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class _Declaration:
    """The content of sweep.json."""

    experiment: Experiment | None
    fields: tuple[str, ...]
    trials: Mapping[str, Mapping[str, Any]]


def _read_declaration(path: Path) -> _Declaration:
    content = read_json_object(path)
    try:
        experiment = from_json(content.get("experiment"))
    except UsageError:
        experiment = None
    listed = content.get("trials")
    trials = {
        name: entry if isinstance(entry, dict) else {}
        for name, entry in (listed.items() if isinstance(listed, dict) else ())
    }
    return _Declaration(experiment, _fields_that_vary(trials, experiment), trials)


def _fields_that_vary(
    trials: Mapping[str, Mapping[str, Any]], base: Experiment | None
) -> tuple[str, ...]:
    """The dotted names that have more than one value; a field that is not set is the base's."""
    settings = []
    for entry in trials.values():
        fields = entry.get("fields")
        parts = fields.items() if isinstance(fields, dict) else ()
        leaves = (leaf for name, part in parts for leaf in _leaves(name, part))
        settings.append(dict(leaves))
    declared = {} if base is None else flat_json(base)
    names = dict.fromkeys(name for values in settings for name in values)
    return tuple(
        name
        for name in names
        if name not in NOT_COMPARED
        and len({value_key(values.get(name, declared.get(name))) for values in settings}) > 1
    )


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The dotted fields of a part of an experiment; a class of the user's own is one field."""
    if isinstance(value, dict) and value.get("type") != "Own":
        for field, inner in value.items():
            yield from _leaves(f"{name}.{field}", inner)
    else:
        yield name, value
