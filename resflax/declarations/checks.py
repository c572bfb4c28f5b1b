"""Checks that all declarations share: type checks by annotation, and one way to refuse a value."""

import dataclasses
import functools
import math
import numbers
import types
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from resflax.errors import UsageError


def added(default: Any, before: Any = ...) -> Any:
    """A field that a declaration got after it was first published.

    Args:
      default: the field's default.
      before: the value that experiments without the field had in effect, if it is not the default.
        It must never change: an experiment written before the field existed is read with it, and
        the content hash leaves the field out as long as it has it.
    """
    value = default if before is ... else before
    return dataclasses.field(default=default, metadata={"before": value})


def refuse(declaration: object, field: str, allowed: str) -> NoReturn:
    """Raises a `UsageError` that names the field, its value and what is allowed."""
    value = getattr(declaration, field)
    raise UsageError(f"{type(declaration).__name__}.{field} is {short(value)}; {allowed}")


def short(value: object) -> str:
    """`repr(value)`, shortened so that an error stays one readable line."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python refuses to print a huge integer, here one inside another value
        text = f"a {type(value).__name__} with a huge integer"
    return text if len(text) <= 80 else text[:77] + "..."


def check_types(declaration: Any) -> None:
    """Checks every field against its annotation.

    Ints become floats, lists become tuples, and values of other libraries become Python's own (see
    `as_python`).
    """
    cls = type(declaration)
    for name, hint in field_types(cls).items():
        value = _convert(getattr(declaration, name), hint, f"{cls.__name__}.{name}")
        object.__setattr__(declaration, name, value)


def as_python(value: Any) -> Any:
    """Numbers, texts and arrays of NumPy, JAX and the like as Python's own; other values unchanged.

    An array or a range becomes a list. A number stays what it is: `np.int64(3)` becomes 3,
    `np.float64(3)` becomes 3.0, and `np.float32(0.1)` becomes 0.10000000149011612. None of these
    libraries is imported, because all of their numbers and arrays have `tolist`.
    """
    if value is None or isinstance(value, type) or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, range):
        return list(value)
    if callable(getattr(value, "tolist", None)):
        value = value.tolist()
    if type(value) in (list, tuple):
        return type(value)(map(as_python, value))
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        return float(value)
    return str.__str__(value) if isinstance(value, str) else value


def field_types(cls: Any) -> Mapping[str, Any]:
    """The resolved annotation of every field of a dataclass."""
    return _resolve_types(cls)


@functools.cache  # resolving takes longer than everything else that is done to a declaration
def _resolve_types(cls: Any) -> Mapping[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def choices(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union annotation, or the annotation itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


_MISMATCH = object()


def _convert(value: Any, hint: Any, where: str) -> Any:
    alternatives, value = choices(hint), as_python(value)
    for alternative in alternatives:
        converted = _match(value, alternative)
        if converted is not _MISMATCH:
            return converted
    expected = " or ".join(map(_describe, alternatives))
    raise UsageError(f"{where} is {short(value)}; it must be {expected}")


def _match(value: Any, hint: Any) -> Any:
    """`value` converted to one non-union annotation, or `_MISMATCH` if it does not fit."""
    if get_origin(hint) is Literal:
        hit = any(type(value) is type(x) and value == x for x in get_args(hint))
        return value if hit else _MISMATCH
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple | list):
            return _MISMATCH
        (item, _) = get_args(hint)  # declarations only use tuple[X, ...]
        items = tuple(_match(element, item) for element in value)
        return _MISMATCH if _MISMATCH in items else items
    if hint is float:
        return _as_float(value)
    if hint is int and isinstance(value, bool):
        return _MISMATCH
    return value if isinstance(value, hint) else _MISMATCH


def _as_float(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _MISMATCH
    try:
        number = float(value)
    except OverflowError:
        return _MISMATCH
    return number + 0.0 if math.isfinite(number) else _MISMATCH  # -0.0 + 0.0 is 0.0: one hash


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a tuple of {get_args(hint)[0].__name__}"
    if getattr(hint, "__name__", "") == "Own":
        return "a class of your own (itself, or as 'file.py:Class')"
    names = {
        int: "an int",
        float: "a finite float",
        str: "a str",
        bool: "True or False",
        type(None): "None",
    }
    return names.get(hint, f"a {getattr(hint, '__name__', hint)}")
