"""Declarations of sweeps: which fields of an experiment vary, and which values they take."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from resflax.declarations.checks import as_python, check_types, refuse, short
from resflax.declarations.own import FIELDS_WITH_CLASSES, Own, as_own
from resflax.errors import UsageError

Fields = str | tuple[str, ...]
"""One field, `"model.depth"`, or several that vary together, `("model.depth", "batch_size")`."""


@dataclass(frozen=True)
class Point:
    """One point of a sweep: the fields of the experiment that are replaced, and their values."""

    fields: Mapping[str, Any]
    """Values by dotted field, such as `{"model.depth": 20, "seed": 3}`."""

    name: str | None = None
    """Name of the variant, if the sweep has named variants."""


@dataclass(frozen=True)
class Grid:
    """Every combination of the values; each combination is one trial.

        Grid({"model.depth": [20, 56], "model.shortcut": ["none", "zero_pad"], "seed": range(5)})

    has 20 trials. Fields in a tuple vary together, so this grid has 10 trials:

        Grid({("model.depth", "batch_size"): [(20, 128), (110, 64)], "seed": range(5)})

    Variants are named sets of fields. Each variant is combined with all values of the other fields:

        Grid({"seed": range(5)}, variants=[{"name": "original"},
                                           {"name": "gated", "model.shortcut": "shortcut_gating"}])
    """

    fields: Mapping[Fields, Iterable[Any]]
    """Values of each dotted field of the experiment. A value may also be a whole part of the
    experiment, such as `ResNet(20)` for `"model"`."""

    variants: Sequence[Mapping[str, Any]] = ()
    """Variants. Each has its name under the key `name`, and the values of its fields."""

    points: tuple[Point, ...] = field(init=False, repr=False, compare=False)
    """All points in order; the last field varies fastest."""

    def __post_init__(self) -> None:
        """Raises `UsageError` if values are missing or equal, or if a field varies twice."""
        if not isinstance(self.fields, Mapping):
            raise UsageError(f"Grid.fields is {short(self.fields)}; it must map fields to values")
        axes = [self._axis(names, values) for names, values in self.fields.items()]
        variants = self._variants()
        varying = [name for names in self.fields for name in _names(names)]
        varying += sorted({name for variant in variants for name in variant.fields})
        for name in varying:
            if varying.count(name) > 1:
                raise UsageError(f"Grid: {name} varies in two places; it must vary in only one")
        if not varying and not variants:
            raise UsageError("Grid.fields is empty; a sweep must vary at least one field")
        points = []
        for variant, *assignments in itertools.product(variants or [Point({})], *axes):
            fields = dict(variant.fields)
            for assignment in assignments:
                fields |= assignment
            points.append(Point(fields, variant.name))
        object.__setattr__(self, "points", tuple(points))

    @property
    def fields_that_vary(self) -> frozenset[str]:
        """Dotted names of the fields that the sweep replaces."""
        return frozenset(name for point in self.points for name in point.fields)

    def _axis(self, names: Fields, given: Iterable[Any]) -> list[dict[str, Any]]:
        """Assignments to the fields `names`, one for each of the values."""
        where, fields = f"Grid: {_joined(names)}", _names(names)
        given = as_python(given)
        if not fields or not all(isinstance(name, str) and name.strip() for name in fields):
            raise UsageError(f"{where} is not a field; name fields as in model.depth")
        if isinstance(given, str | Mapping) or not hasattr(given, "__iter__"):
            raise UsageError(f"{where} is {short(given)}; it must be a list of values")
        values: list[Any] = as_python(list(given))
        if isinstance(names, str):
            values = [_with_class(names, value) for value in values]
        if not values:
            raise UsageError(f"{where} has no values; it must have at least one")
        _refuse_equal(where, values)
        if isinstance(names, str):
            return [{names: value} for value in values]
        for value in values:
            if not isinstance(value, tuple | list) or len(value) != len(fields):
                raise UsageError(
                    f"{where} has the value {short(value)}; it must be {len(fields)} values"
                )
        pairs = [list(zip(fields, value, strict=True)) for value in values]
        return [{name: _with_class(name, item) for name, item in pair} for pair in pairs]

    def _variants(self) -> list[Point]:
        points = []
        for variant in self.variants:
            name = variant.get("name") if isinstance(variant, Mapping) else None
            if not isinstance(name, str) or not name.strip():
                raise UsageError(f"Grid: the variant {short(variant)} needs a name")
            fields = {k: v for k, v in variant.items() if k != "name"}
            values = {k: _with_class(k, as_python(v)) for k, v in fields.items()}
            points.append(Point(values, as_python(name)))
        _refuse_equal("Grid: the variants' names", [point.name for point in points])
        return points


def _with_class(field: str, value: Any) -> Any:
    """The value; a class of the user's own is read now, while the folder of its file is known."""
    return as_own(value) if field in FIELDS_WITH_CLASSES else value


def _names(names: Fields) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _joined(names: Fields) -> str:
    return names if isinstance(names, str) else f"({', '.join(map(str, names))})"


def _refuse_equal(where: str, values: Sequence[Any]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise UsageError(f"{where}: {short(value)} occurs twice; values must differ")


@dataclass(frozen=True)
class Uniform:
    """Real numbers from `low` to `high`, drawn on a linear scale."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value of the wrong type or an empty range."""
        check_types(self)
        _check_range(self)


@dataclass(frozen=True)
class LogUniform:
    """Positive real numbers from `low` to `high`, drawn on a logarithmic scale."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value of the wrong type or an empty range."""
        check_types(self)
        _check_range(self)
        if self.low <= 0:
            refuse(self, "low", "it must be above 0 to have a logarithm")


@dataclass(frozen=True)
class Integers:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    step: int = 1
    """Distance between neighbouring numbers, counted from `low`."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value of the wrong type or an empty range."""
        check_types(self)
        _check_range(self)
        if self.step < 1:
            refuse(self, "step", "it must be at least 1")


def _check_range(declared: Uniform | LogUniform | Integers) -> None:
    if declared.low >= declared.high:
        refuse(declared, "high", f"it must be above low, {declared.low}")


@dataclass(frozen=True)
class Choice:
    """One of several values, which may be str, bool, int, float, None or a class of your own."""

    values: Iterable[Any]

    def __post_init__(self) -> None:
        """Raises `UsageError` for fewer than two values, or values that a search cannot store."""
        given = as_python(self.values)
        if isinstance(given, str) or not hasattr(given, "__iter__") or len(list(given)) < 2:
            raise UsageError(f"Choice.values is {short(given)}; it must have two or more")
        values = [_name_of_class(v) if isinstance(v, type) else v for v in as_python(list(given))]
        object.__setattr__(self, "values", values)
        for value in self.values:
            if not isinstance(value, str | bool | int | float | None):
                raise UsageError(
                    f"Choice.values has {short(value)}; a value must be str, bool, int, float, "
                    "None or a class"
                )
        _refuse_equal("Choice.values", list(self.values))


def _name_of_class(value: Any) -> Any:
    """FILE.py:CLASS with the whole path for a class of the user's own; any other value as it is."""
    own = as_own(value)
    return f"{own.file}:{own.name}" if isinstance(own, Own) else value


Range = Uniform | LogUniform | Integers | Choice


def _naming_files(field: str, values: Range) -> Range:
    """The range; classes of the user's own are named by whole paths, which a search can store."""
    if field not in FIELDS_WITH_CLASSES or not isinstance(values, Choice):
        return values
    return Choice([_name_of_class(value) for value in values.values])


@dataclass(frozen=True)
class Search:
    """A search for the values with the lowest validation error.

    TPE (Bergstra et al. 2011) proposes the values. A trial is stopped early if its error is too
    high compared with the other trials at the same step. The test split plays no part. A search
    needs held-out examples (`data.validation`) and Optuna (`pip install 'resflax[search]'`).
    """

    fields: Mapping[str, Range]
    """Range of each dotted field of the experiment."""

    trials: int
    """Total number of trials."""

    pruner: Literal["hyperband", "median", "none"] = "hyperband"
    """Rule that stops trials early: Hyperband (Li et al. 2018), or an error above the median of
    the earlier trials at the same step."""

    seed: int = 0
    """Seed of the proposals. The trials train with the experiment's own seed."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a value of the wrong type, no fields, or no trials."""
        if not isinstance(self.fields, Mapping) or not self.fields:
            raise UsageError(f"Search.fields is {short(self.fields)}; it must map fields to ranges")
        for name, values in self.fields.items():
            if not isinstance(values, Range):
                raise UsageError(
                    f"Search: {name} is {short(values)}; it must be Uniform, LogUniform, Integers "
                    "or Choice"
                )
        named = {n: _naming_files(n, values) for n, values in self.fields.items()}
        object.__setattr__(self, "fields", named)
        for number in ("trials", "seed"):
            object.__setattr__(self, number, as_python(getattr(self, number)))
        if not isinstance(self.trials, int) or isinstance(self.trials, bool) or self.trials < 1:
            refuse(self, "trials", "it must be at least 1")
        if self.pruner not in ("hyperband", "median", "none"):
            refuse(self, "pruner", "it must be one of hyperband, median, none")

    @property
    def fields_that_vary(self) -> frozenset[str]:
        """Dotted names of the fields that the search chooses."""
        return frozenset(self.fields)


Sweep = Grid | Search
