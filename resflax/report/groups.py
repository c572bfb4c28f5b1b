"""Groups the runs that differ only in the seed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resflax.experiment import Experiment, flat_json
from resflax.report.collect import RunRecord

IGNORED_FIELDS = (
    "seed",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "parallel",
    "data.data_dir",
    "initialize_from",
)
"""Fields in which the runs of one seed group may differ."""


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ only in the seed, or in other fields that do not set groups apart."""

    label: str
    """The name of the group in the report."""
    fields: dict[str, Any]
    """The values, by dotted field name, that set the group apart from the other groups."""
    runs: tuple[RunRecord, ...]
    """The runs in the order of their seeds, one for each seed."""
    repeated: tuple[RunRecord, ...] = ()
    """Runs that are not used, because another run of the group has the same seed."""

    @property
    def finished(self) -> tuple[RunRecord, ...]:
        """The runs that have a result."""
        return tuple(run for run in self.runs if run.result is not None)

    @property
    def experiment(self) -> Experiment:
        """The experiment of the first run."""
        return self.runs[0].experiment


def form_seed_groups(runs: Sequence[RunRecord]) -> list[SeedGroup]:
    """Divides runs into groups whose runs differ only in the seed.

    The groups are labelled and sorted by the fields that vary between them. A field that follows
    from those before it is left out, as the gate's bias follows from the shortcut.
    """
    flat = [flat_json(run.experiment) for run in runs]
    varying: list[str] = []
    keys: list[tuple[str, ...]] = [()] * len(runs)
    for name in _field_names(flat):
        finer = [
            (*key, json.dumps(values.get(name), sort_keys=True))
            for key, values in zip(keys, flat, strict=True)
        ]
        if len(set(finer)) > len(set(keys)):
            keys = finer
            varying.append(name)
    members: dict[tuple[str, ...], list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    groups = []
    for indices in members.values():
        fields = {name: flat[indices[0]].get(name) for name in varying}
        group_runs = sorted((runs[i] for i in indices), key=lambda run: run.experiment.seed)
        groups.append(SeedGroup(_group_label(group_runs, fields), fields, tuple(group_runs)))
    return sorted(groups, key=lambda group: [_sort_key(value) for value in group.fields.values()])


def _field_names(flat: Sequence[dict[str, Any]]) -> list[str]:
    """The fields that can set groups apart: those of the first run, of the others, then `name`."""
    names = [name for name in flat[0] if name not in ("name", *IGNORED_FIELDS)] if flat else []
    others = {name for values in flat for name in values}
    return [*names, *sorted(others - {*names, "name", *IGNORED_FIELDS}), "name"]


def _sort_key(value: Any) -> tuple[int, float, str]:
    """A key that sorts numbers first, by value, and everything else after them, as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def _group_label(runs: Sequence[RunRecord], fields: dict[str, Any]) -> str:
    variants = {run.variant for run in runs}
    if len(variants) == 1 and (variant := variants.pop()) is not None:
        return variant
    flat = flat_json(runs[0].experiment)
    parts = [field_label(name, value, flat) for name, value in fields.items() if value is not None]
    return ", ".join(dict.fromkeys(parts)) or runs[0].experiment.name


def field_label(name: str, value: Any, flat: Mapping[str, Any]) -> str:
    """A field and its value in words, such as `depth 20`.

    Args:
      name: the dotted name of the field.
      value: its value.
      flat: the experiment's `flat_json`.
    """
    if name == "model.type":
        return str(flat.get("model.network", value))
    if name in ("name", "data.name", "model.network"):
        return str(value)
    if name.endswith(".code"):
        return f"{flat[name.removesuffix('.code')]} {value[:6]}"
    return f"{name.rpartition('.')[2].replace('_', ' ')} {value}"
