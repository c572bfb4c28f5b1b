"""Declarations as plain JSON values, which later versions of resflax can read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from resflax.declarations.checks import choices, field_types, short
from resflax.declarations.own import NAMES_CLASS, Own, Values
from resflax.errors import UsageError

MISSING = object()


def plain(value: Any) -> Any:
    """A declaration, or a field of one, as plain JSON values.

    Each declaration has its class name as `type`.
    """
    if isinstance(value, Own):
        return value.to_json()
    if isinstance(value, Values):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, type):
        return value.__name__
    if dataclasses.is_dataclass(value):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    return value


def identity(value: Any) -> Any:
    """Like `plain`, without what does not decide what the declaration stands for.

    These are fields that have the value which experiments had before the field existed, so that a
    new field changes no hash, and the places of files.
    """
    if isinstance(value, Own):
        fields = {name: plain(item) for name, item in value.fields.items()}
        return {"type": "Own", "name": value.name, "code": value.code_sha256, "fields": fields}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return plain(value)
    fields = {
        field.name: identity(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != value_before(field)
    }
    return {"type": type(value).__name__, **fields}


def value_before(field: dataclasses.Field[Any]) -> Any:
    """The value that experiments had before the field existed; `MISSING` for an original field."""
    return field.metadata.get("before", MISSING)


def construct(cls: Any, value: object, where: str) -> Any:
    """The inverse of `plain` for a declaration class.

    A missing field has the value that experiments had before it existed.

    Raises `UsageError`, which names `where`, for anything that is not such a declaration.
    """
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is {short(value)}; it must be an object of fields")
    given = dict(value)
    types = field_types(cls)
    unknown = sorted(short(name) for name in given.keys() - types.keys())
    if unknown:
        raise UsageError(
            f"{where} has no field {unknown[0]} in this version of resflax; it has "
            f"{', '.join(types)}; a newer version may know it"
        )
    before = {field.name: value_before(field) for field in dataclasses.fields(cls)}
    values = {}
    for name, hint in types.items():
        if name not in given:
            if before[name] is MISSING:
                raise UsageError(f"{where} lacks the field {name}")
            values[name] = before[name]
            continue
        values[name] = _field(hint, given[name], f"{where}.{name}")
    return cls(**values)


def _field(hint: Any, value: object, where: str) -> Any:
    """The value of a field with this annotation."""
    alternatives = choices(hint)
    classes = [c for c in alternatives if isinstance(c, type) and dataclasses.is_dataclass(c)]
    if Own in alternatives and isinstance(value, Mapping):
        return Own.recorded(value, where)
    if Own in alternatives and isinstance(value, str) and NAMES_CLASS.search(value):
        # A record that names a file would run it before anything is compared.
        raise UsageError(f"{where} is {short(value)}; a record of a class has its hash")
    if alternatives == (Own,):
        raise UsageError(f"{where} is {short(value)}; it must be the record of a class")
    parts = {c.__name__: c for c in classes}
    if not parts:
        return value
    fields = dict(value) if isinstance(value, Mapping) else {}
    name = fields.pop("type", None)
    if not isinstance(name, str) or name not in parts:
        raise UsageError(f"{where}.type is {short(name)}; it must be one of {', '.join(parts)}")
    return construct(parts[name], fields, where)
