"""Names groups of runs for people to read: short labels, no two of which are equal."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from resflax.runs.origins import NOT_COMPARED, InitialWeights

IGNORED_FIELDS = (*NOT_COMPARED, "initialize_from", "initial_weights")
"""Fields of an experiment that by themselves do not set groups apart. Groups differ in their
initial weights by where these come from, and not by folder or hash."""

_LONGEST = 40
"""The most characters of a value in a label."""


value_key = json.JSONEncoder(sort_keys=True).encode
"""A text that is equal for equal values; 1, 1.0 and True differ."""


def field_label(name: str, value: Any, flat: Mapping[str, Any], exact: bool = False) -> str:
    """The value of a field in words, such as `depth 20`.

    Args:
      name: dotted name of the field.
      value: its value, as `SeedGroup.fields` has it.
      flat: all fields of the experiment.
      exact: whether numbers have all their digits, and long values all their characters.
    """
    short_name = name.rpartition(".")[2].replace("_", " ")
    if name == "initial_weights":
        return "from scratch" if value is None else f"from {value}"
    if value is None:
        return f"no {short_name}"
    if name == "model.type":
        return str(flat.get("model.network", value))
    if name in ("name", "data.name", "model.network") or name.endswith(".type"):
        return str(value)
    if name.endswith(".code"):
        return f"{flat[name.removesuffix('.code')]} {value if exact else value[:6]}"
    text = f"{value:.4g}" if isinstance(value, float) and not exact else str(value)
    if len(text) > _LONGEST and not exact:
        text = f"{text[: _LONGEST - 1]}…"
    return f"{short_name} {text}"


def name_origins(origins: Sequence[InitialWeights | None]) -> list[str | None]:
    """A name for each origin of initial weights; other origins have other names.

    It is the name of the experiment that trained the weights, with the step if that alone differs.
    """
    known = [origin for origin in origins if origin is not None]
    # The same weights may be found in several folders; the first name is used.
    by_name = sorted(known, key=lambda origin: (origin.name, origin.step or 0), reverse=True)
    distinct = {origin.identity: origin for origin in by_name}
    levels = [
        [origin.name for origin in distinct.values()],
        [
            origin.name if origin.step is None else f"{origin.name} at step {origin.step}"
            for origin in distinct.values()
        ],
        [f"{origin.name} {identity[:6]}" for identity, origin in distinct.items()],
    ]
    names = dict(zip(distinct, _first_distinct(levels), strict=True))
    return [None if origin is None else names[origin.identity] for origin in origins]


def find_varying(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names under which not all have the same value: in order, but with `name` at the end."""
    names = dict.fromkeys(name for fields in values for name in fields if name != "name")
    return [name for name in (*names, "name") if len({value_key(v.get(name)) for v in values}) > 1]


def find_telling(values: Sequence[Mapping[str, Any]], varying: Sequence[str]) -> list[str]:
    """The names that tell these apart, without those that follow from the names before them.

    The initial weights are among them wherever they vary.
    """
    dividing = find_dividing(values, varying)
    return [
        name
        for name in varying
        if name in dividing
        or (name == "initial_weights" and len({fields[name] for fields in values}) > 1)
    ]


def find_dividing(values: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The names that divide these further than the names before them do."""
    dividing = []
    parts, count = [0] * len(values), min(1, len(values))
    for name in names:
        numbers: dict[tuple[int, str], int] = {}
        finer = [
            numbers.setdefault((part, value_key(fields.get(name))), len(numbers))
            for part, fields in zip(parts, values, strict=True)
        ]
        if len(numbers) > count:
            parts, count = finer, len(numbers)
            dividing.append(name)
    return dividing


def make_labels(
    values: Sequence[Mapping[str, Any]], variants: Sequence[str | None], varying: Sequence[str]
) -> tuple[list[str], bool]:
    """A label for each group, none of which is equal to another.

    A label consists of the variant's name, if there is one, and the fields that tell the group from
    others, or from others of the same variant. A field that follows from those before it is left
    out, as the gate's bias follows from the shortcut. Groups of several experiments are named by
    their experiment and the fields that vary in it, if that is shorter. If all this is not enough,
    values are written in full, then the experiments are named, and at last groups are numbered.

    Args:
      values: the fields of each group by dotted name, with the name of the origin of its initial
        weights under `initial_weights`.
      variants: the name of each group's variant.
      varying: the names that `find_varying` returns.

    Returns:
      The labels, and whether they begin with the names of the experiments.
    """
    names = [str(fields["name"]) for fields in values]
    chosen = _find_parts(values, variants, varying)
    by_name: list[tuple[list[str], list[str]]] = [([], [])] * len(values)
    for name in (experiments := set(names)):
        inside = [i for i, here in enumerate(names) if here == name]
        parts = _find_parts([values[i] for i in inside], [variants[i] for i in inside], varying)
        for i, (brief, full) in zip(inside, parts, strict=True):
            by_name[i] = [name, *brief], [name, *full]
    several = 1 < len(experiments) < len(names)
    named = several and sum(len(b) for b, _ in by_name) < sum(len(b) for b, _ in chosen)
    chosen = by_name if named else chosen
    parts_and_names = list(zip(chosen, names, strict=True))
    levels = [
        [_joined(brief) or _joined(full) or name for (brief, full), name in parts_and_names],
        [_joined(full) or name for (_, full), name in parts_and_names],
        [_joined([*full, name]) for (_, full), name in parts_and_names],
    ]
    return _first_distinct(levels), named


def _find_parts(
    values: Sequence[Mapping[str, Any]], variants: Sequence[str | None], varying: Sequence[str]
) -> list[tuple[list[str], list[str]]]:
    """The parts of each group's label: those of a short label, and those of an exact one."""
    everything = find_telling(values, varying)
    within = set()  # the names that tell groups of one variant apart
    for variant in set(variants) - {None}:
        members = [v for v, here in zip(values, variants, strict=True) if here == variant]
        within |= set(find_telling(members, varying))
    of_variants = [name for name in varying if name in within]
    found = []
    for fields, variant in zip(values, variants, strict=True):
        names = everything if variant is None else of_variants
        start = [] if variant is None else [variant]
        brief = [field_label(name, fields[name], fields) for name in names if _is_set(fields, name)]
        full = [field_label(name, fields[name], fields, True) for name in names if name in fields]
        found.append(([*start, *brief], [*start, *full]))
    return found


def sort_key(value: Any) -> tuple[int, float, str]:
    """A key that sorts numbers first, by value, and everything else after them, as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def _is_set(fields: Mapping[str, Any], name: str) -> bool:
    return fields.get(name) is not None or name == "initial_weights"


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(parts))


def _first_distinct(levels: Sequence[Sequence[str]]) -> list[str]:
    """The first text of each item that no other item has; if there is none, the last is numbered.

    Args:
      levels: the texts of all items, from the shortest to the most exact.
    """
    texts = list(levels[0])
    for level in levels[1:]:
        counts = Counter(texts)
        texts = [new if counts[old] > 1 else old for old, new in zip(texts, level, strict=True)]
    taken, counts, numbered = set(texts), Counter(texts), []
    for text in texts:
        if counts[text] > 1:
            number = 1
            while f"{text} ({number})" in taken:
                number += 1
            text = f"{text} ({number})"
            taken.add(text)
        numbered.append(text)
    return numbered
