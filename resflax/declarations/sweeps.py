"""Sweeps as declarations: which fields of an experiment vary, and over what."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from resflax.declarations.checks import check_types, refuse, short
from resflax.errors import UsageError

Fields = str | tuple[str, ...]
"""`"model.depth"`, or several that vary together: `("model.depth", "batch_size")`."""


@dataclass(frozen=True)
class Point:
    """One place in a sweep: the fields that are replaced there."""

    fields: Mapping[str, Any]
    """Values by dotted field, such as `{"model.depth": 20, "seed": 3}`."""

    name: str | None = None
    """Of the variant, where the sweep has named ones."""


@dataclass(frozen=True)
class Grid:
    """Every combination of the values, one trial each.

        Grid({"model.depth": [20, 56], "model.shortcut": ["none", "zero_pad"], "seed": range(5)})

    has 20 trials. Fields in a tuple vary together, so that this has 10:

        Grid({("model.depth", "batch_size"): [(20, 128), (110, 64)], "seed": range(5)})

    and variants are named sets of fields, each combined with all else:

        Grid({"seed": range(5)}, variants=[{"name": "original"},
                                           {"name": "gated", "model.shortcut": "shortcut_gating"}])
    """

    fields: Mapping[Fields, Sequence[Any]]
    """Values by dotted field of the experiment. A value may be a whole part, such as a
    `ResNet(20)` for `"model"`."""

    variants: Sequence[Mapping[str, Any]] = ()
    """Fields of each variant, and its `name`."""

    points: tuple[Point, ...] = field(init=False, repr=False, compare=False)
    """All places, the last field varying fastest."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for no values, equal values, or a field that varies twice."""
        if not isinstance(self.fields, Mapping):
            raise UsageError(f"Grid.fields is {short(self.fields)}; it must map fields to values")
        axes = [self._axis(names, values) for names, values in self.fields.items()]
        variants = self._variants()
        together = [name for names in self.fields for name in _names(names)]
        together += sorted({name for variant in variants for name in variant.fields})
        for name in together:
            if together.count(name) > 1:
                raise UsageError(f"Grid: {name} varies in two places; it must be in one")
        if not together and not variants:
            raise UsageError("Grid.fields is empty; a sweep varies at least one field")
        points = []
        for variant, *parts in itertools.product(variants or [Point({})], *axes):
            merged = dict(variant.fields)
            for part in parts:
                merged |= part
            points.append(Point(merged, variant.name))
        object.__setattr__(self, "points", tuple(points))

    @property
    def fields_that_vary(self) -> frozenset[str]:
        """Dotted names."""
        return frozenset(name for point in self.points for name in point.fields)

    def _axis(self, names: Fields, values: Sequence[Any]) -> list[dict[str, Any]]:
        where, fields = f"Grid: {_shown(names)}", _names(names)
        if not fields or not all(isinstance(name, str) and name.strip() for name in fields):
            raise UsageError(f"{where} is no field; name one as in model.depth")
        if isinstance(values, str | Mapping) or not hasattr(values, "__iter__"):
            raise UsageError(f"{where} is given {short(values)}; it must be a list of values")
        found = list(values)
        if not found:
            raise UsageError(f"{where} has no values; it must have at least one")
        _refuse_equal(where, found)
        if isinstance(names, str):
            return [{names: value} for value in found]
        for value in found:
            if not isinstance(value, tuple | list) or len(value) != len(fields):
                raise UsageError(
                    f"{where} is given {short(value)}; it must be {len(fields)} values"
                )
        return [dict(zip(fields, value, strict=True)) for value in found]

    def _variants(self) -> list[Point]:
        points = []
        for variant in self.variants:
            name = variant.get("name") if isinstance(variant, Mapping) else None
            if not isinstance(name, str) or not name.strip():
                raise UsageError(f"Grid: the variant {short(variant)} needs a name")
            points.append(Point({k: v for k, v in variant.items() if k != "name"}, name))
        _refuse_equal("Grid: the variants' names", [point.name for point in points])
        return points


def _names(names: Fields) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _shown(names: Fields) -> str:
    return names if isinstance(names, str) else f"({', '.join(map(str, names))})"


def _refuse_equal(where: str, values: Sequence[Any]) -> None:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise UsageError(f"{where}: {short(value)} is there twice")


@dataclass(frozen=True)
class Uniform:
    """Real numbers from `low` to `high`, each as likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or an empty range."""
        check_types(self)
        _check_range(self)


@dataclass(frozen=True)
class LogUniform:
    """Positive real numbers from `low` to `high`, whose logarithms are each as likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or an empty range."""
        check_types(self)
        _check_range(self)
        if self.low <= 0:
            refuse(self, "low", "a logarithm needs it above 0")


@dataclass(frozen=True)
class Integers:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    step: int = 1
    """Distance between two of them, from `low` on."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or an empty range."""
        check_types(self)
        _check_range(self)
        if self.step < 1:
            refuse(self, "step", "it must be at least 1")


def _check_range(numbers: "Uniform | LogUniform | Integers") -> None:
    if numbers.low >= numbers.high:
        refuse(numbers, "high", f"it must be above low, {numbers.low}")


@dataclass(frozen=True)
class Choice:
    """One of several values: str, bool, int, float or None."""

    values: Sequence[Any]

    def __post_init__(self) -> None:
        """Raises `UsageError` for fewer than two values, or values that a search cannot store."""
        if isinstance(self.values, str) or len(tuple(self.values)) < 2:
            raise UsageError(f"Choice.values is {short(self.values)}; it must be two or more")
        for value in self.values:
            if not isinstance(value, str | bool | int | float | None):
                raise UsageError(
                    f"Choice.values has {short(value)}; it must be str, bool, int, float or None"
                )
        _refuse_equal("Choice.values", list(self.values))


Range = Uniform | LogUniform | Integers | Choice


@dataclass(frozen=True)
class Search:
    """A search for the values with the lowest validation error; the test split has no part in it.

    TPE (Bergstra et al. 2011) proposes the values, and trials that fall behind the others at the
    same step are stopped early. Needs examples held out (`data.validation`) and Optuna
    (`pip install -e '.[search]'`).
    """

    fields: Mapping[str, Range]
    """What each dotted field of the experiment may be."""

    trials: int
    """Trials in all."""

    pruner: Literal["hyperband", "median", "none"] = "hyperband"
    """What stops trials early: Hyperband (Li et al. 2018), or being worse than the median of the
    trials so far at the same step."""

    seed: int = 0
    """Of the proposals; the trials' own is the experiment's."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type, no fields, or no trials."""
        if not isinstance(self.fields, Mapping) or not self.fields:
            raise UsageError(f"Search.fields is {short(self.fields)}; it must map fields to ranges")
        for name, values in self.fields.items():
            if not isinstance(values, Range):
                raise UsageError(
                    f"Search: {name} is given {short(values)}; it must be Uniform, LogUniform, "
                    "Integers or Choice"
                )
        if not isinstance(self.trials, int) or isinstance(self.trials, bool) or self.trials < 1:
            refuse(self, "trials", "it must be at least 1")
        if self.pruner not in ("hyperband", "median", "none"):
            refuse(self, "pruner", "it must be one of hyperband, median, none")

    @property
    def fields_that_vary(self) -> frozenset[str]:
        """Dotted names."""
        return frozenset(self.fields)


Sweep = Grid | Search
