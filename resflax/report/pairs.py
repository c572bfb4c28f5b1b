"""Which groups are compared with each other: those that differ in one field."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resflax.experiment import flat_json
from resflax.report.families import VARIANT, Family, form_families, make_unnamed_family
from resflax.report.groups import SeedGroup
from resflax.report.labels import field_label

SWEEP = "sweep"
"""Stands for the sweep of named variants, where the groups are not all of one sweep."""


@dataclass(frozen=True)
class Pair:
    """Two groups that are compared."""

    group: SeedGroup
    reference: SeedGroup
    """The group with which it is compared."""
    field: str
    """The dotted name of the field in which the two differ. It is `VARIANT` for named variants, and
    "" where groups that differ in any fields are compared with a chosen group."""
    here: Mapping[str, Any]
    """The group's values of the fields in which the two differ, by name."""
    there: Mapping[str, Any]
    """The reference's values of these fields."""
    context: Mapping[str, Any]
    """The values of the other fields that vary, in which the two are equal."""


def value_text(group: SeedGroup, name: str, value: Any) -> str:
    """A value of a field of the group, as the labels write it: `depth 20`."""
    return str(value) if name == VARIANT else field_label(name, value, flat_json(group.experiment))


def pair_with_twins(
    groups: Sequence[SeedGroup], chosen: Mapping[str, str] | None = None
) -> list[Pair]:
    """Pairs each group, for every field that varies, with its twin.

    The twin has the reference value of this field, and equals the group in all other fields. Where
    no group with the reference value is equal in the others, the twin has the next value of
    `Family.by_preference`.

    Args:
      groups: the groups.
      chosen: reference values, as `value_key` writes them, by field. Then there are only pairs that
        differ in these fields, and no twin has another value.
    """
    families = form_families(groups)
    pairs: list[Pair] = []
    for family in families:
        ranks = {
            name: {key: rank for rank, key in enumerate(family.by_preference(name))}
            for name in family.axes
        }
        ranks |= {name: {key: 0} for name, key in (chosen or {}).items()}
        for name in family.axes:
            if chosen is None or name in chosen:
                found = _find_twins(family, name, ranks)
                pairs += [_make_pair(family, name, i, j, len(families) > 1) for i, j in found]
    return pairs


def _find_twins(
    family: Family, name: str, ranks: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[int, int]]:
    """The indices of groups and their twins, one context (the values of other fields) at a time.

    A field that only one of the two has, as only one may have a gate's bias, makes no difference.
    """
    keys = family.keys
    followers = [other for other in family.axes if other in family.followers[name]]
    others = [other for other in family.axes if other != name and other not in followers]
    contexts: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(family.groups)):
        contexts.setdefault(tuple(keys[other][i] for other in others), []).append(i)

    def rank(j: int) -> list[float]:
        return [ranks[field].get(keys[field][j], math.inf) for field in (name, *followers)]

    def agree(i: int, j: int) -> bool:
        return all(
            keys[field][i] == keys[field][j]
            for field in followers
            if family.has_value(field, i) and family.has_value(field, j)
        )

    for members in contexts.values():
        references = [j for j in members if keys[name][j] in ranks[name]]
        for i in members:
            j = min((j for j in references if agree(i, j)), key=rank, default=i)
            if keys[name][i] != keys[name][j]:
                yield i, j


def _make_pair(family: Family, name: str, i: int, j: int, several_families: bool) -> Pair:
    group, reference = family.groups[i], family.groups[j]
    here: dict[str, Any] = {}
    there: dict[str, Any] = {}
    context: dict[str, Any] = {}
    for field, values in family.values.items():
        has_value, is_axis = [family.has_value(field, k) for k in (i, j)], field in family.axes
        if family.keys[field][i] == family.keys[field][j]:
            if is_axis and all(has_value):
                context[field] = values[i]
        elif is_axis or (
            name != VARIANT  # whose name stands for all that it sets
            and all(has_value)
            and _is_declared(field, group, reference)
        ):
            here |= {field: values[i]} if has_value[0] else {}
            there |= {field: values[j]} if has_value[1] else {}
    if several_families and family.sweep is not None:
        context[SWEEP] = family.sweep.name
    return Pair(group, reference, name, here, there, context)


def _is_declared(field: str, group: SeedGroup, reference: SeedGroup) -> bool:
    """Whether two groups differ in a field by declaration, and not because it is derived.

    Where no sweep declares what varies, every field may be declared.
    """
    here, there = (
        {run.sweep.path: run.sweep for run in either.all_runs if run.sweep}
        for either in (group, reference)
    )
    common = [sweep for path, sweep in here.items() if path in there]
    return not common or any(field in sweep.fields for sweep in common)


def pair_with_group(groups: Sequence[SeedGroup], reference: SeedGroup) -> list[Pair]:
    """Pairs every other group with one group, whatever the fields in which they differ."""
    if any(family.sweep is not None for family in form_families(groups)):
        there = {VARIANT: reference.label}
        return [
            Pair(group, reference, "", {VARIANT: group.label}, there, {})
            for group in groups
            if group is not reference
        ]
    family = make_unnamed_family(groups)
    j = next(j for j, group in enumerate(groups) if group is reference)
    return [_make_pair(family, "", i, j, False) for i in range(len(groups)) if i != j]
