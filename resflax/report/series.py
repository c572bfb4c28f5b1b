"""Finds numeric fields that vary, and the series of groups along them. It does not import JAX."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resflax.drawing.axes import plain_number
from resflax.experiment import flat_json
from resflax.report.groups import IGNORED_FIELDS, SeedGroup, field_label

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
    """Dotted names of the fields whose values follow from this field's."""
    others: tuple[str, ...]
    """Dotted names of all other fields that vary; groups of a line agree in them."""
    lines: tuple[tuple[SeedGroup, ...], ...]
    """The finished groups of each line, in the order of the field's values."""

    def value_of(self, group: SeedGroup) -> float:
        """The field's value in the group's experiment."""
        return float(field_values(group)[self.name])


def short_name(name: str) -> str:
    """The field's name without its part of the experiment: `learning rate`."""
    return name.rpartition(".")[2].replace("_", " ")


def is_number(value: Any) -> bool:
    """Whether the value is an int or float; bool does not count."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def field_values(group: SeedGroup) -> dict[str, Any]:
    """All fields of the group's experiment, by dotted name, without those that groups ignore."""
    flat = flat_json(group.experiment) | group.fields
    ignored = {*IGNORED_FIELDS, "name"} - group.fields.keys()
    return {name: value for name, value in flat.items() if name not in ignored}


def find_numeric_fields(groups: Sequence[SeedGroup]) -> list[NumericField]:
    """Finds the numeric fields in which groups differ that agree in all other fields.

    A field whose values follow from the numeric field's, as the batch size may follow from the
    depth, does not set lines apart. If each also follows from the other, only the first of the two
    is returned. A number that itself follows from words, as the gates' bias may follow from the
    shortcut, is not returned. Unfinished groups count where it is judged what follows from what,
    and are then left out.
    """
    values = [field_values(group) for group in groups]
    names = _varying_names(values)
    keys = {name: [_key(fields.get(name)) for fields in values] for name in names}
    numbers = {
        name: [i for i, fields in enumerate(values) if is_number(fields.get(name))]
        for name in names
    }
    found: list[NumericField] = []
    for name in names:
        members = numbers[name]
        here = {other: [keys[other][i] for i in members] for other in names}
        followers = [
            other
            for other in names
            if other != name and len(set(here[other])) > 1 and _follows(here[other], here[name])
        ]
        if any(
            earlier.name in followers
            and name in earlier.followers
            and set(members) <= set(numbers[earlier.name])
            for earlier in found
        ):
            continue
        others = [other for other in names if other != name and other not in followers]
        lines: dict[Hashable, list[int]] = {}
        for i in members:
            if groups[i].finished:
                lines.setdefault(tuple(keys[other][i] for other in others), []).append(i)
        tells_apart = any(name in groups[i].fields for i in members)
        if not (
            tells_apart
            or all(map(is_number, (values[i].get(o) for o in followers for i in members)))
        ):
            continue
        if any(len({keys[name][i] for i in line}) > 1 for line in lines.values()):
            in_order = [sorted(line, key=lambda i: values[i][name]) for line in lines.values()]
            ordered = tuple(tuple(groups[i] for i in line) for line in in_order)
            found.append(NumericField(name, tuple(followers), tuple(others), ordered))
    return found


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _varying_names(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields that do not have the same value everywhere, in order."""
    names = dict.fromkeys(name for fields in values for name in fields)
    return [name for name in names if len({_key(fields.get(name)) for fields in values}) > 1]


def _follows(these: Sequence[str], from_those: Sequence[str]) -> bool:
    """Whether equal values of those always have equal values of these."""
    return len(set(zip(these, from_those, strict=True))) == len(set(from_those))


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
    values = [field_values(line[0]) for line in lines]
    candidates = _varying_names(values) if names is None else list(names)
    variants = [_variant_of(line) for line in lines]
    if None not in variants:
        values = [fields | {_VARIANT: v} for fields, v in zip(values, variants, strict=True)]
        candidates = [_VARIANT, *candidates]
    telling = _telling_names(values, candidates)
    divider = None
    if len(lines) > most:
        divider = _divider(values, telling, numbers=len(lines) > MOST_SERIES)
    rest = [name for name in telling if name != divider]
    styles: dict[Hashable, int] = {}
    members: dict[Hashable, tuple[str, list[Series]]] = {}
    for line, fields in zip(lines, values, strict=True):
        key = tuple(_key(fields.get(name)) for name in rest)
        style = styles.setdefault(key, len(styles))
        label = _label(fields, rest) if len(lines) > 1 else ""
        series = Series(label, style, tuple(line), tuple(map(x_of, line)))
        title = "" if divider is None else _label(fields, [divider])
        panel = "" if divider is None else _key(fields.get(divider))
        members.setdefault(panel, (title, []))[1].append(series)
    return [
        Panel(title, tuple(series[:MOST_SERIES]), max(0, len(series) - MOST_SERIES))
        for title, series in members.values()
    ]


def _variant_of(line: Sequence[SeedGroup]) -> str | None:
    """The name of the variant to which all runs of a line belong, if there is one."""
    variants = {run.variant for group in line for run in group.runs}
    return variants.pop() if len(variants) == 1 else None


def _telling_names(values: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The fields that tell the lines apart, without those that follow from the fields before."""
    telling: list[str] = []
    keys: list[tuple[str, ...]] = [()] * len(values)
    for name in names:
        finer = [(*key, _key(fields.get(name))) for key, fields in zip(keys, values, strict=True)]
        if len(set(finer)) > len(set(keys)):
            keys = finer
            telling.append(name)
    return telling


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
    taken = {name: {_key(v.get(name)): v.get(name) for v in values} for name in names}
    few = [name for name in names if 2 <= len(taken[name]) <= 6]
    words = [name for name in few if not any(map(is_number, taken[name].values()))]
    return next(iter([*words, *(few if numbers else [])]), None)


def _label(fields: Mapping[str, Any], names: Sequence[str]) -> str:
    """The fields' values in words; a variant's name stands for itself."""
    known = [name for name in names if fields.get(name) is not None]
    parts = [
        str(fields[name]) if name == _VARIANT else field_label(name, _short(fields[name]), fields)
        for name in known
    ]
    if not parts and names:
        return f"{short_name(names[0])} not set"
    return ", ".join(dict.fromkeys(parts))


def _short(value: Any) -> Any:
    """The value; a float is a text of four digits."""
    return plain_number(float(f"{value:.4g}")) if isinstance(value, float) else value
