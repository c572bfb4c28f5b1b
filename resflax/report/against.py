"""The choice of the reference: `--against "shortcut none"`."""

from collections.abc import Mapping, Sequence

from resflax.errors import UsageError
from resflax.report.families import Family, form_families
from resflax.report.groups import SeedGroup
from resflax.report.pairs import value_text

_MOST_NAMED = 8
"""The most possible references that an error names."""


def find_reference(groups: Sequence[SeedGroup], text: str) -> SeedGroup | dict[str, str]:
    """The group or the values that `--against` means.

    Args:
      groups: the groups that are compared.
      text: the label of a group, as the report shows it, or the name of a variant, or one or
        several fields with values, such as `shortcut none, depth 20`.

    Returns:
      A group, if the text is a group's label, with its parts in any order; otherwise the values, as
      `value_key` writes them, by field.

    Raises:
      UsageError: if the text fits neither a group nor values that occur.
    """
    labelled = [group for group in groups if group.label == text]
    if len(labelled) == 1:
        return labelled[0]
    families = form_families(groups)
    parts = _name_parts(families)
    found = _split(text.strip(), parts)
    chosen = dict(found or ())
    if found is None or len(chosen) < len(found):
        raise UsageError(f"--against is {text!r}; {_what_would_fit(groups, parts)}")
    named = [
        group
        for family in families
        for i, group in enumerate(family.groups)
        if chosen == {n: family.keys[n][i] for n in family.axes if family.has_value(n, i)}
    ]
    return named[0] if len(named) == 1 else chosen


Part = tuple[str, str]
"""A field, and the key of one of its values."""


def _name_parts(families: Sequence[Family]) -> dict[str, Part]:
    """The values that may be references, by their names.

    A value is named as in the labels, with the dotted name of its field where that is ambiguous.
    """
    texts: dict[Part, str] = {}
    for family in families:
        for name in family.axes:
            for i, group in enumerate(family.groups):
                if family.has_value(name, i):
                    texts[name, family.keys[name][i]] = value_text(
                        group, name, family.values[name][i]
                    )
    names = list(texts.values())
    return {
        text if names.count(text) == 1 else f"{name} {key}": (name, key)
        for (name, key), text in texts.items()
    }


def _split(text: str, parts: Mapping[str, Part]) -> list[Part] | None:
    """The parts of which a text consists, with commas between them; None if it does not.

    Names may have commas themselves.
    """
    if text in parts:
        return [parts[text]]
    for name, part in parts.items():
        if text.startswith(f"{name}, "):
            others = _split(text[len(name) + 2 :], parts)
            if others is not None:
                return [part, *others]
    return None


def _what_would_fit(groups: Sequence[SeedGroup], parts: Mapping[str, Part]) -> str:
    if len(groups) == 1:
        return "all runs differ in the seed alone, so there is nothing to compare"
    names = list(dict.fromkeys([*parts, *(group.label for group in groups)]))
    named, more = names[:_MOST_NAMED], len(names) - _MOST_NAMED
    return f"it must be one of: {'; '.join(named)}{f'; or {more} more' if more > 0 else ''}"
