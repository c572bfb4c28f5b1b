"""Families of groups: the groups among which comparisons are made, and the fields that vary."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from resflax.experiment import flat_json
from resflax.report.collect import RunRecord
from resflax.report.groups import SeedGroup
from resflax.report.labels import find_dividing, value_key

VARIANT = "variant"
"""Stands for all fields that the named variants of a sweep set, as if they were one field."""


@dataclass(frozen=True, eq=False)
class Family:
    """Groups among which comparisons are made.

    The groups of a sweep that names its variants are a family, and all other groups are another.
    """

    groups: tuple[SeedGroup, ...]
    values: Mapping[str, tuple[Any, ...]]
    """The values of all groups, by the name of each field that varies in the family."""
    axes: tuple[str, ...]
    """The fields that tell the groups apart. The others follow from these, as the learning rate
    follows from the batch size if each size has a rate of its own."""
    sweep: Path | None = None
    """The sweep whose variants have names; None for other groups."""

    @cached_property
    def keys(self) -> dict[str, tuple[str, ...]]:
        """`value_key` of the values."""
        return {name: tuple(map(value_key, values)) for name, values in self.values.items()}

    @cached_property
    def followers(self) -> dict[str, frozenset[str]]:
        """The followers of each axis: fields that only some of its values have.

        The gate's bias is a follower of the shortcut, because it is None where there is no gate.
        """
        return {
            name: frozenset(other for other in self.values if self._follows(other, name))
            for name in self.axes
        }

    def _follows(self, name: str, leader: str) -> bool:
        part = leader.rpartition(".")[0]  # only fields of the same part depend on each other
        words = all(isinstance(value, str) for value in self.values[leader])
        if name == leader or not words or not part or not name.startswith(f"{part}."):
            return False
        missing: dict[str, set[bool]] = {}
        for key, value in zip(self.keys[leader], self.values[name], strict=True):
            missing.setdefault(key, set()).add(value is None)
        return {tuple(either) for either in missing.values()} == {(False,), (True,)}

    def has_value(self, name: str, index: int) -> bool:
        """Whether a field applies to a group, as a gate's bias does where there is a gate."""
        is_follower = any(name in names for names in self.followers.values())
        return self.values[name][index] is not None or not is_follower

    def by_preference(self, name: str) -> list[str]:
        """The keys of an axis's values, with those that are better references before the others.

        The first is the value of the experiment that the sweep varies. The others, or all if there
        is no such value or if several sweeps disagree, are in the order of the groups. Variants are
        in the order in which they are declared.
        """
        indices = [i for i in range(len(self.groups)) if self.has_value(name, i)]
        if name == VARIANT:
            indices.sort(key=lambda i: _declared_place(self.groups[i]))
            declared = [self.keys[name][i] for i in indices if self._is_as_declared(i)]
        else:
            declared = list({value_key(base.get(name)) for base in self._bases})
        present = list(dict.fromkeys(self.keys[name][i] for i in indices))
        if declared and declared[0] in present and (name == VARIANT or len(declared) == 1):
            present.remove(declared[0])
            present.insert(0, declared[0])
        return present

    @cached_property
    def _bases(self) -> list[dict[str, Any]]:
        """The fields of the experiments that the groups' sweeps vary."""
        sweeps = (run.sweep for group in self.groups for run in group.all_runs if run.sweep)
        experiments = {sweep.path: sweep.experiment for sweep in sweeps}
        return [flat_json(base) for base in experiments.values() if base is not None]

    def _is_as_declared(self, index: int) -> bool:
        """Whether a group's variant sets its fields as the sweep's experiment has them."""
        fields = self.groups[index].fields
        set_by_variants = [n for n in self.values if n != VARIANT and n not in self.axes]
        return any(
            all(value_key(fields[name]) == value_key(base.get(name)) for name in set_by_variants)
            for base in self._bases
        )


def _declared_place(group: SeedGroup) -> float:
    numbers = (run.number for run in group.all_runs if run.number is not None)
    return min(numbers, default=math.inf)


def form_families(groups: Sequence[SeedGroup]) -> list[Family]:
    """Divides the groups into families."""
    members: dict[Path | None, list[SeedGroup]] = {}
    for group in groups:
        run = _named_run(group)
        members.setdefault(None if run is None else run.path.parent.parent, []).append(group)
    return [_make_family(inside, sweep) for sweep, inside in members.items()]


def make_unnamed_family(groups: Sequence[SeedGroup]) -> Family:
    """Makes a family of all groups, in which names of variants do not count."""
    return _make_family(groups, None)


def _named_run(group: SeedGroup) -> RunRecord | None:
    """The first run that belongs to a named variant."""
    return next((run for run in group.all_runs if run.variant is not None), None)


def _make_family(groups: Sequence[SeedGroup], sweep: Path | None) -> Family:
    columns: dict[str, tuple[Any, ...]] = {}
    if sweep is not None:
        runs = map(_named_run, groups)
        columns[VARIANT] = tuple(None if run is None else run.variant for run in runs)
    for name in dict.fromkeys(name for group in groups for name in group.fields):
        values = tuple(group.fields.get(name) for group in groups)
        if len(set(map(value_key, values))) > 1:
            columns[name] = values
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Family(tuple(groups), columns, tuple(find_dividing(rows, list(columns))), sweep)
