"""The format of experiment.json: what a new field or class must do, and what readers say."""

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from declared_experiments import experiment

from resflax import Custom, UsageError
from resflax.declarations.checks import choices, field_types
from resflax.declarations.records import MISSING, value_before
from resflax.experiment import FORMAT, Experiment, from_json, to_json


def declarations(cls: Any = Experiment) -> Iterator[Any]:
    """The experiment's class, and those of its parts."""
    yield cls
    for hint in field_types(cls).values():
        for part in choices(hint):
            if dataclasses.is_dataclass(part):
                yield from declarations(part)


DECLARATIONS: dict[str, Any] = {cls.__name__: cls for cls in declarations()}
ADDED = [
    (cls, field)
    for cls in DECLARATIONS.values()
    if cls is not Custom  # which is new as a whole
    for field in dataclasses.fields(cls)
    if value_before(field) is not MISSING
]

ORIGINAL = "c726b3710d90"
"""The hash of all fields of format 1."""

KNOWN: dict[int, str] = {2: "dc1e21454860", 3: "9bc3680c027d"}
"""For each format, the hash of the fields that it added, with the values before them."""


def digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]


def test_a_new_field_says_what_was_before_it():
    # A field without `added(...)` makes every older run unreadable and every older sweep repeat.
    original = [
        f"{cls.__name__}.{field.name}"
        for cls in DECLARATIONS.values()
        if cls is not Custom
        for field in dataclasses.fields(cls)
        if value_before(field) is MISSING
    ]
    assert digest(original) == ORIGINAL, "declare new fields with `added(...)`"


def test_the_format_grows_with_the_fields():
    added = [f"{cls.__name__}.{f.name} = {value_before(f)!r}" for cls, f in ADDED]
    added += [name for name in DECLARATIONS if name == "Custom"]
    assert {FORMAT: digest(added)} == {max(KNOWN): KNOWN[max(KNOWN)]}, "increase FORMAT"


@pytest.mark.parametrize(("cls", "field"), ADDED, ids=[f"{c.__name__}.{f.name}" for c, f in ADDED])
def test_a_field_that_is_missing_has_the_value_from_before(cls, field):
    made = experiment()
    plain = to_json(made)
    places = [plain, *(part for part in plain.values() if isinstance(part, dict))]
    for place in places:
        if (place is plain and cls is Experiment) or place.get("type") == cls.__name__:
            del place[field.name]
    read = from_json(plain)
    assert read.content_hash == made.content_hash


def test_an_experiment_without_a_format_is_of_the_first():
    plain = to_json(experiment())
    for place in (plain, *(part for part in plain.values() if isinstance(part, dict))):
        for cls, field in ADDED:
            if place.get("type", "Experiment") == cls.__name__:
                del place[field.name]
    del plain["format"]
    assert from_json(plain) == experiment().resolved()
    assert from_json(plain).hash_of_format_1 == experiment().hash_of_format_1


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (FORMAT + 1, "written by a newer version of resflax, and this one reads formats up to"),
        (0, "experiment.format is 0; it must be a number of at least 1"),
        ("2", "experiment.format is '2'; it must be a number of at least 1"),
        (True, "experiment.format is True; it must be"),
    ],
)
def test_another_format_is_refused(number, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        from_json(to_json(experiment()) | {"format": number})
