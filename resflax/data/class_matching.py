"""Finds the classes of one data set among those of a network that was trained on another set."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from resflax.errors import UsageError


@dataclass(frozen=True)
class ClassMatching:
    """The network's class for each class of another set."""

    numbers: tuple[int, ...]
    """The number that the network gives to each class of the other set, in the set's order."""
    by: Literal["name", "number"]
    """Whether the classes were found by their names, or their numbers were taken as they are."""


def numbers_as_names(count: int) -> list[str]:
    """The names of classes that have none: "0", "1", ..."""
    return [str(number) for number in range(count)]


def match_classes(
    names: Sequence[str],
    named: bool,
    known: Sequence[str] | None,
    num_classes: int,
    where: str,
) -> ClassMatching:
    """Finds the classes of a set among those of a network.

    Classes are found by name. Names may differ in case, and in spaces, underscores and dashes; they
    are compared in Unicode's normalisation form C. The set may lack classes of the network and have
    another order. If the classes of either have no names, or the set's names are just the numbers
    of all classes, the numbers are taken as they are, provided that there are equally many classes.

    Args:
      names: the names of the set's classes in order.
      named: whether these are names, and not only the numbers of classes without names.
      known: the names of the network's classes in order; their numbers if they have no names; None
        if nothing is known of them.
      num_classes: number of the network's classes.
      where: names the set in errors.

    Raises:
      UsageError: if the network does not know a class, or a name is ambiguous.
    """
    numbers = numbers_as_names(num_classes)
    if not named:
        if len(names) != num_classes:
            raise UsageError(
                f"the classes of {where} have no names, and there are {len(names)} of them, but "
                f"the network has {num_classes}; numbers can be compared only if there are "
                "equally many"
            )
        return ClassMatching(tuple(range(num_classes)), "number")
    unknown: list[str] = list(names)
    if known is not None:
        found = [_find(name, known, where) for name in names]
        unknown = [name for name, number in zip(names, found, strict=True) if number is None]
        if not unknown:
            _check_different(names, found, known, where)
            return ClassMatching(tuple(number for number in found if number is not None), "name")
    if sorted(names) == sorted(numbers):  # such as the folders 0, 1, 10, 100, ... of ImageNet-V2
        return ClassMatching(tuple(int(name) for name in names), "number")
    nameless = known is None or list(known) == numbers
    if nameless and len(names) == num_classes:
        return ClassMatching(tuple(range(num_classes)), "number")
    if known is None:
        raise UsageError(
            f"{where} has {len(names)} classes and the network {num_classes}, whose names are not "
            "known because its own data set cannot be found; say where it is with --data-dir"
        )
    others = f" and {len(unknown) - 1} more that" if len(unknown) > 1 else ", which"
    raise UsageError(
        f"{where} has the class {unknown[0]}{others} the network does not know; the network's "
        f"classes are {_some(known)}"
    )


def _find(name: str, known: Sequence[str], where: str) -> int | None:
    """The number of the class with a name; None if there is none.

    Raises `UsageError` if there are several.
    """
    for same in (_composed, _key):
        found = [number for number, other in enumerate(known) if same(other) == same(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"the class {name} of {where} is ambiguous: the network's classes {found[0]} and "
                f"{found[1]} are both named so ({known[found[0]]}, {known[found[1]]})"
            )
    return None


def _check_different(
    names: Sequence[str], found: Sequence[int | None], known: Sequence[str], where: str
) -> None:
    """Raises `UsageError` if two classes of the set are the same class of the network."""
    first: dict[int | None, str] = {}
    for name, number in zip(names, found, strict=True):
        if number in first:
            assert number is not None, "all classes were found"
            raise UsageError(
                f"{where} has the classes {first[number]} and {name}, which are both the network's "
                f"class {known[number]}"
            )
        first[number] = name


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _key(name: str) -> str:
    """What is compared of a name: not its case, nor which marks stand between its words."""
    return re.sub(r"[\s_-]+", " ", _composed(name).casefold()).strip()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
