"""Declarations of a user's own classes: a shortcut, a unit's branch, a whole network.

A declaration names the class and the file that defines it, and has the hash of the code that the
class needs (see `parts.source`). The code is run when an experiment file declares the class, and
when a network is built. A declaration that was read from a run's experiment.json has run nothing.
"""

import contextlib
import dataclasses
import inspect
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any

from resflax.declarations.checks import as_python, short
from resflax.errors import UsageError
from resflax.parts.keeping import kept_source
from resflax.parts.loading import load_class
from resflax.parts.source import Source, read_source
from resflax.paths import user_path

Value = Any
"""A value that a declaration may set for a field of a user's class. It is a number, a str, a bool,
None, or a tuple of these."""

FIELDS_WITH_CLASSES = ("model.shortcut", "model.unit", "model.network")
"""Fields of an experiment that may be classes of the user's own."""

_folder: ContextVar[Path | None] = ContextVar("folder of the experiment file", default=None)


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[None]:
    """Looks for files such as `my_shortcuts.py` in this folder first, for an experiment file."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


class Values(Mapping[str, Value]):
    """Names with their values: a mapping that cannot be changed and has a hash."""

    def __init__(self, values: Mapping[str, Value] = {}) -> None:
        """Raises `UsageError` for a value that is none of those that `Value` allows."""
        self._values = {str(name): _value(name, given) for name, given in values.items()}

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


def _value(name: str, given: Any) -> Value:
    given = as_python(given)
    if isinstance(given, list | tuple):
        return tuple(_value(name, item) for item in given)
    if isinstance(given, float) and not math.isfinite(given):
        raise UsageError(f"{name} is {given}; it must be a finite number")
    if given is not None and type(given) not in (bool, int, float, str):
        raise UsageError(
            f"{name} is {short(given)}; it must be a number, a str, True, False, None or a list "
            "of these, so that a run can record it"
        )
    return given


class Own:
    """A class of the user's own, with values for its fields.

        ResNet(depth=20, shortcut=LearnedScale)
        ResNet(depth=20, shortcut=Own(LearnedScale, initial=0.5))
        ResNet(depth=20, shortcut="my_shortcuts.py:LearnedScale")

    Two declarations are equal if they have the same name, the same code and the same values, no
    matter where the file lies. (This is no dataclass, because its fields are not options of the
    command line.)
    """

    name: str
    """The name of the class."""
    code_sha256: str
    """The hash of the code that the class needs."""
    fields: Values
    """Values of the class's own fields, those with their default values included."""
    file: Path
    """The file that defines the class, as an absolute path."""
    files: Values
    """The sha256 of each file that the class needs, by its path below the root. The first is
    `file`."""
    kept: Path | None
    """The folder with a copy of the files, if the declaration was read from a run or a sweep."""
    trusted: bool
    """Whether that copy may be run."""

    def __init__(self, part: "type | str | Own", /, **fields: Value) -> None:
        """Reads the code of a class, runs it, and checks the values of its fields.

        Args:
          part: the class, or `"FILE.py:CLASS"`.
          **fields: values of the class's own fields.

        Raises `UsageError` if the class cannot be found again in a file, if its code fails, or if
        it has no such field.
        """
        if isinstance(part, Own):
            self._set(part, fields=self._checked({**part.fields, **fields}, part.load()))
            return
        file, name, root = _split(part) if isinstance(part, str) else _place(part)
        source = read_source(file, name, root)
        self._set(
            None,
            name=name,
            code_sha256=source.sha256,
            fields=Values(),
            file=file,
            files=Values(source.file_hashes),
            kept=None,
            trusted=False,
        )
        self._set(self, fields=self._checked(fields, self.load()))

    def _set(self, like: "Own | None", **values: Any) -> None:
        vars(self).update({} if like is None else vars(like), **values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"an Own cannot be changed; make another one with another {name}")

    def _key(self) -> tuple[str, str, Values]:
        return self.name, self.code_sha256, self.fields

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def checked(self, given: Mapping[str, Value]) -> Values:
        """Values of the class's fields, checked: those given, and the defaults of the others.

        Raises `UsageError` if the class has no such field or another type of value.
        """
        return self._checked(given, self.load())

    def _checked(self, given: Mapping[str, Value], cls: type) -> Values:
        """All values: those given, checked, and the defaults of the others."""
        fields = own_fields_of(cls)
        for name in given.keys() - fields.keys():
            there = f"it has {', '.join(fields)}" if fields else "it has none"
            raise UsageError(f"{cls.__name__} has no field {name} of its own; {there}")
        values = {}
        for name, default in fields.items():
            if name in given:
                values[name] = _like(default, given[name], f"{cls.__name__}.{name}")
            elif default is REQUIRED:
                raise UsageError(f"{cls.__name__}.{name} has no default; give it a value")
            elif default is not UNRECORDED:
                values[name] = default
        return Values(values)

    @classmethod
    def recorded(cls, record: Mapping[str, Any], where: str) -> "Own":
        """The declaration that `to_json` recorded; nothing is run.

        Raises `UsageError`, which names `where`, if the record is not whole.
        """
        kinds = {
            "type": str,
            "name": str,
            "fields": Mapping,
            "code_sha256": str,
            "file": str,
            "files": Mapping,
        }
        for name in record.keys() - kinds.keys():
            raise UsageError(f"{where} has no field {short(name)}; a newer version may know it")
        for name, kind in kinds.items():
            if not isinstance(record.get(name), kind):
                raise UsageError(f"{where}.{name} is {short(record.get(name))}; it is damaged")
        files = list(record["files"])
        if record["type"] != "Own" or not record["name"].isidentifier():
            raise UsageError(f"{where} does not name a class; it is damaged")
        if not files or not all(map(_is_path_below, files)):
            raise UsageError(f"{where}.files is {short(record['files'])}; it is damaged")
        file = record["file"]
        if "\0" in file or not Path(file).is_absolute() or not file.endswith(files[0]):
            raise UsageError(f"{where}.file is {short(record['file'])}; it is damaged")
        own = object.__new__(cls)
        own._set(
            None,
            name=record["name"],
            code_sha256=record["code_sha256"],
            fields=Values(record["fields"]),
            file=Path(record["file"]),
            files=Values(record["files"]),
            kept=None,
            trusted=False,
        )
        return own

    def to_json(self) -> dict[str, Any]:
        """Everything that finds the class again, as plain JSON values."""
        return {
            "type": "Own",
            "name": self.name,
            "fields": {name: _plain(value) for name, value in self.fields.items()},
            "code_sha256": self.code_sha256,
            "file": str(self.file),
            "files": dict(self.files),
        }

    def with_copy(self, kept: Path, trusted: bool) -> "Own":
        """The same class, of which a run or a sweep has a copy in the folder `kept`."""
        own = object.__new__(Own)
        own._set(self, kept=kept, trusted=trusted)
        vars(own).pop("source", None)
        return own

    def without_fields(self) -> "Own":
        """The same class without values of its fields."""
        own = object.__new__(Own)
        own._set(self, fields=Values())
        return own

    @cached_property
    def source(self) -> Source:
        """The code of the class: that of its file or, if it has changed, the copy that was kept.

        Raises `UsageError` if the file has changed or is gone, and there is no copy that may be
        run.
        """
        return kept_source(
            self.file, self.name, self.code_sha256, tuple(self.files), self.kept, self.trusted
        )

    @property
    def is_loaded(self) -> bool:
        """Whether the code of the class has been read in this process."""
        return "source" in vars(self)

    @property
    def uses_copy(self) -> bool:
        """Whether the code is the copy that was kept."""
        return self.kept is not None and self.source.root.is_relative_to(self.kept.absolute())

    def load(self) -> type:
        """Runs the code and returns the class. Raises `UsageError` as `source` does."""
        return load_class(self.source)

    def __repr__(self) -> str:
        """The name of the class, and the values that are not its defaults, as far as is known."""
        defaults = own_fields_of(self.load()) if self.is_loaded else {}
        shown = {n: v for n, v in self.fields.items() if n not in defaults or v != defaults[n]}
        values = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"{self.name}({values})" if values else self.name


def _is_path_below(path: str) -> bool:
    """Whether a path stays below the folder that it is relative to."""
    parts = path.split("/")
    return path.endswith(".py") and not {"", ".", ".."} & set(parts) and "\0" not in path


def _plain(value: Value) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _split(text: str) -> tuple[Path, str, Path | None]:
    """The file and the class that `FILE.py:CLASS` names, and the folder that it was found from."""
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise UsageError(f"{short(text)} does not name a class; write it as file.py:Class")
    expanded = user_path(path)
    places = [folder for folder in (_folder.get(), Path.cwd()) if folder is not None]
    for place in places:
        file = Path(os.path.abspath(place / expanded))
        if file.is_file():
            is_package = (file.parent / "__init__.py").is_file()
            return file, name, place if file.is_relative_to(place) and not is_package else None
    raise UsageError(f"{text}: there is no file {places[0] / expanded}")


def _place(part: Any) -> tuple[Path, str, Path]:
    """The file and the name of a class, and the folder from which its module was imported."""
    if not isinstance(part, type):
        kind = type(part).__name__
        if kind == "function":
            name = "a lambda" if part.__name__ == "<lambda>" else f"the function {part.__name__}"
            raise UsageError(f"{name} is not a class; a run finds only a class of a file again")
        raise UsageError(
            f"it is an object of the class {kind}; give the class itself and set its fields with "
            f"Own({kind}, ...) or, for a network, with arguments={{...}}"
        )
    if "." in part.__qualname__:
        where = "inside a function" if "<locals>" in part.__qualname__ else "inside a class"
        raise UsageError(
            f"{part.__name__} is made {where}, where a later session cannot find it again; define "
            "it at the top level of a file"
        )
    text = getattr(sys.modules.get(part.__module__), "__file__", None)
    if text is None or not Path(text).is_file():
        raise UsageError(
            f"{part.__name__} is not defined in a file, so a later session cannot find it again; "
            "write it to a .py file and declare it as file.py:Class"
        )
    file = Path(text).absolute()
    parts, names = [*file.parts[:-1], file.stem], part.__module__.split(".")
    if file.name == "__init__.py":
        parts = parts[:-1]
    if parts[-len(names) :] == names:
        return file, part.__name__, Path(*parts[: -len(names)])
    return file, part.__name__, file.parent  # it was run as a script


class _NoDefault:
    """The default of a field that has none, or none that a run can record."""


REQUIRED = _NoDefault()
"""In place of a default: the field must be given a value."""
UNRECORDED = _NoDefault()
"""In place of a default that a run cannot record, such as a function. It is part of the code."""

_SET_BY_NETWORK = ("parent", "name", "num_classes", "layers")
"""Fields of linen modules and of networks that no declaration sets."""


def own_fields_of(cls: type) -> dict[str, Any]:
    """The fields of a class that a declaration may set, with their defaults.

    Instead of a default, a field may have `REQUIRED` or `UNRECORDED`.

    Args:
      cls: a class with dataclass fields, as linen modules, shortcuts and branches have.
    """
    if not dataclasses.is_dataclass(cls):
        return {}
    hidden = {*_SET_BY_NETWORK, *getattr(cls, "set_by_network", ())}
    return {
        field.name: _default(field)
        for field in dataclasses.fields(cls)
        if field.init and field.name not in hidden
    }


def _default(field: Any) -> Any:
    default = field.default
    if default is dataclasses.MISSING:
        if field.default_factory is dataclasses.MISSING:
            return REQUIRED
        default = field.default_factory()
    try:
        return _value(field.name, default)
    except UsageError:
        return UNRECORDED


def _like(default: Any, given: Value, where: str) -> Value:
    """The value, as a float if the default is one. Raises `UsageError` for another type."""
    given = _value(where, given)
    if type(default) is float and type(given) is int:
        return float(given)
    if type(default) in (bool, int, float, str, tuple) and type(given) is not type(default):
        raise UsageError(f"{where} is {short(given)}; it must be a {type(default).__name__}")
    return given


def as_own(value: Any) -> Any:
    """A class or `"FILE.py:CLASS"` as an `Own`; any other value stays as it is."""
    if isinstance(value, str):
        return Own(value) if NAMES_CLASS.search(value) else value
    is_class = isinstance(value, type) or callable(value)
    return Own(value) if is_class and not isinstance(value, Own) else value


NAMES_CLASS = re.compile(r"\.py\b|[\\/:]")
"""What shows that a text is meant as `FILE.py:CLASS` and not as a name."""


def own_classes(declaration: Any) -> dict[str, Own]:
    """The user's own classes among the fields of a declaration, by the fields' names."""
    values = {f.name: getattr(declaration, f.name) for f in dataclasses.fields(declaration)}
    return {name: value for name, value in values.items() if isinstance(value, Own)}


@contextlib.contextmanager
def naming(declaration: object, field: str) -> Iterator[None]:
    """Lets every `UsageError` begin with the field that it is about."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{type(declaration).__name__}.{field}: {error}") from error.__cause__


def check_derived(cls: type, base: type, *arguments: str) -> None:
    """Checks that a class is derived from another, and how it is called.

    Args:
      cls: the class.
      base: the class that it must be derived from.
      *arguments: the arguments of its `__call__` beside `train`.

    Raises `UsageError` if the class is not derived from `base` or is called in another way.
    """
    if not issubclass(cls, base):
        wanted = f"{_PUBLIC[base.__name__]}.{base.__name__}"
        raise UsageError(f"{cls.__name__} is not derived from {wanted}, as it must be")
    try:
        inspect.signature(cls.__call__).bind(None, *arguments, train=True)
    except (TypeError, ValueError) as error:
        wanted = ", ".join(("self", *arguments, "*", "train"))
        raise UsageError(
            f"{cls.__name__}.__call__ does not take what it is given ({error}); define it as "
            f"__call__({wanted})"
        ) from None


_PUBLIC = {"Shortcut": "resflax.models", "Branch": "resflax.models", "Module": "flax.linen"}
"""The modules from which users import the base classes."""


def check_network(cls: type) -> None:
    """Like `check_derived`, for a linen module that is a whole network."""
    linen = sys.modules.get("flax.linen")
    if linen is None:  # then nothing of linen was imported by the class's file either
        raise UsageError(f"{cls.__name__} is not derived from flax.linen.Module, as it must be")
    check_derived(cls, linen.Module, "images")
