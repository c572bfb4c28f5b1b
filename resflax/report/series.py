"""Finds numeric fields that vary, and the series of groups along them. It does not import JAX."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resflax.experiment import flat_json
from resflax.report.groups import SeedGroup
from resflax.report.labels import field_label, find_telling, find_varying, value_key

MOST_SERIES = 12
"""The most series in one picture."""

_VARIANT = "variant"
"""Stands among the fields for the name of a sweep's variant."""


@dataclass(frozen=True)
class Series:
    """Groups that are drawn in one style, usually joined by a line."""

    label: str
    """The fields that tell the series from the others of its panel; "" if it is alone."""
    style: int
    """Its place among the styles; the same in all panels for series of equal labels."""
    groups: tuple[SeedGroup, ...]
    """The groups in the order of the x axis."""
    xs: tuple[float, ...]
    """The value of the x axis for each group."""


@dataclass(frozen=True)
class Panel:
    """The series of one picture."""

    title: str
    """The field that all series have in common, and its value; "" if there is one panel only."""
    series: tuple[Series, ...]
    """At most `MOST_SERIES` series."""
    left_out: int
    """Number of further series, which are not drawn."""


@dataclass(frozen=True)
class NumericField:
    """A field that takes several numbers, with the lines of groups along it."""

    name: str
    """The dotted name."""
    followers: tuple[str, ...]
    """Dotted names of further fields that vary along the lines."""
    others: tuple[str, ...]
    """Dotted names of the other fields that tell groups apart; groups of a line agree in them."""
    lines: tuple[tuple[SeedGroup, ...], ...]
    """The finished groups of each line, in the order of the field's values."""

    def value_of(self, group: SeedGroup) -> float:
        """The field's value in the group's experiment."""
        return float(group.fields[self.name])

    def groups_along(
        self, series: Sequence[Series], groups: Sequence[SeedGroup]
    ) -> list[SeedGroup]:
        """Those of the groups that have a place on the lines of the series, finished or not."""
        keys = {_values_of(one.groups[0], self.others) for one in series}
        return [
            group
            for group in groups
            if is_number(group.fields.get(self.name)) and _values_of(group, self.others) in keys
        ]


def short_name(name: str) -> str:
    """The field's name without its part of the experiment: `learning rate`."""
    return name.rpartition(".")[2].replace("_", " ")


def is_number(value: Any) -> bool:
    """Whether the value is an int or float; bool does not count."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def find_numeric_fields(groups: Sequence[SeedGroup]) -> list[NumericField]:
    """Finds the numeric fields along which groups can be joined by lines.

    These are fields that tell groups apart. A line joins the groups that are equal in all other
    fields that tell groups apart. Fields that follow from these may vary along it, as the batch
    size does if each depth has its own. Unfinished groups count where it is judged which fields
    follow from others, and are then left out.

    Returns:
      The fields with a line of two or more values.
    """
    names = find_varying([group.fields for group in groups])
    telling = find_telling([group.fields for group in groups], names)
    found = []
    for name in telling:
        others = [other for other in telling if other != name]
        lines: dict[Hashable, list[SeedGroup]] = {}
        for group in groups:
            if group.finished and is_number(group.fields.get(name)):
                lines.setdefault(_values_of(group, others), []).append(group)
        if not any(len({group.fields[name] for group in line}) > 1 for line in lines.values()):
            continue
        ordered = [
            tuple(sorted(line, key=lambda group: group.fields[name])) for line in lines.values()
        ]
        along = {n for line in ordered for n in find_varying([group.fields for group in line])}
        followers = tuple(n for n in names if n in along and n != name)
        found.append(NumericField(name, followers, tuple(others), tuple(ordered)))
    return found


def arrange(
    lines: Sequence[Sequence[SeedGroup]],
    names: Sequence[str] | None = None,
    most: int = MOST_SERIES,
    x_of: Callable[[SeedGroup], float] = lambda group: 0.0,
) -> list[Panel]:
    """Labels lines of groups, and divides them into panels if they are many.

    If there are more than `most` lines, the panels are divided by the first field that has 2 to 6
    values, none of them a number; if there are more than `MOST_SERIES` and no such field, by the
    first that has 2 to 6 numbers. Lines with equal fields but for the panel's have the same style.

    Args:
      lines: the groups of each line, which agree in the fields `names`.
      names: dotted names of the fields that may tell lines apart; all that vary by default.
      most: the most lines that are drawn without panels.
      x_of: gives a group's value on the x axis.

    Returns:
      The panels, each with at most `MOST_SERIES` series.
    """
    values: list[dict[str, Any]] = [dict(line[0].fields) for line in lines]
    candidates = find_varying(values) if names is None else list(names)
    variants = [_variant_of(line) for line in lines]
    if None not in variants:
        values = [fields | {_VARIANT: v} for fields, v in zip(values, variants, strict=True)]
        candidates = [_VARIANT, *candidates]
    telling = find_telling(values, candidates)
    divider = None
    if len(lines) > most:
        divider = _divider(values, telling, numbers=len(lines) > MOST_SERIES)
    rest = [name for name in telling if name != divider]
    styles: dict[Hashable, int] = {}
    members: dict[Hashable, tuple[str, list[Series]]] = {}
    for line, fields in zip(lines, values, strict=True):
        key = tuple(value_key(fields.get(name)) for name in rest)
        style = styles.setdefault(key, len(styles))
        label = _label(line[0], fields, rest) if len(lines) > 1 else ""
        series = Series(label, style, tuple(line), tuple(map(x_of, line)))
        title = "" if divider is None else _label(line[0], fields, [divider])
        panel = "" if divider is None else value_key(fields.get(divider))
        members.setdefault(panel, (title, []))[1].append(series)
    return [
        Panel(title, tuple(series[:MOST_SERIES]), max(0, len(series) - MOST_SERIES))
        for title, series in members.values()
    ]


def _values_of(group: SeedGroup, names: Sequence[str]) -> tuple[str, ...]:
    """Texts of the group's values under these names, which are equal for equal values."""
    return tuple(value_key(group.fields.get(name)) for name in names)


def _variant_of(line: Sequence[SeedGroup]) -> str | None:
    """The name of the variant to which all runs of a line belong, if there is one."""
    variants = {run.variant for group in line for run in group.runs}
    return variants.pop() if len(variants) == 1 else None


def _divider(
    values: Sequence[Mapping[str, Any]], names: Sequence[str], *, numbers: bool
) -> str | None:
    """The first of several fields that has 2 to 6 values, if possible of words.

    Args:
      values: the fields of each line.
      names: the fields that tell the lines apart.
      numbers: whether it may be a field of numbers.
    """
    if len(names) < 2:
        return None
    taken = {name: {value_key(v.get(name)): v.get(name) for v in values} for name in names}
    few = [name for name in names if 2 <= len(taken[name]) <= 6]
    words = [name for name in few if not any(map(is_number, taken[name].values()))]
    return next(iter([*words, *(few if numbers else [])]), None)


def _label(group: SeedGroup, fields: Mapping[str, Any], names: Sequence[str]) -> str:
    """The fields' values in words; a variant's name stands for itself.

    Fields that are not set are left out, unless nothing else is left.
    """
    flat = flat_json(group.experiment) | group.fields
    known = [n for n in names if fields.get(n) is not None or n == "initial_weights"] or names
    parts = [
        str(fields[name]) if name == _VARIANT else field_label(name, fields.get(name), flat)
        for name in known
    ]
    return ", ".join(dict.fromkeys(parts))
