"""Runs as a table of pandas, which need not be installed for anything else."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resflax.errors import UsageError
from resflax.experiment import flat_json
from resflax.report.collect import RunRecord
from resflax.report.groups import form_seed_groups

if TYPE_CHECKING:
    import pandas as pd

_RESULTS = {
    "test_error": float,
    "test_loss": float,
    "validation_error": float,
    "validation_loss": float,
    "best_step": int,
    "best_validation_error": float,
    "best_test_error": float,
    "train_error": float,
    "train_loss": float,
    "params": int,
    "macs": int,
    "seconds": float,
    "params_sha256": str,
}
"""The columns that are fields of result.json, with the types of their values."""


def make_dataframe(runs: Sequence[RunRecord]) -> "pd.DataFrame":
    """A table with one row per run, in the order of the runs.

    The columns are:

    - `path` (the run folder), `state` (finished, unfinished, failed or pruned), `why` a run failed
      or was pruned, and the `variant` of the sweep, if the sweep names its variants;
    - `repeated`: whether reports do not use the run, because its seed was run several times and
      another of these runs is used;
    - the fields of the experiments by dotted name (`model.depth`, `seed`), as far as the runs have
      them, so that a field of one run's network may be missing in another run's row;
    - `steps_done`, the step of the last line of the log; `test_error`, `test_loss` and so on from
      result.json, which unfinished runs lack; `images_per_second`, the median speed in training.

    Whole numbers are int64, or Int64 if some are missing; other numbers are float64; tuples are
    objects.

    Raises `UsageError` if pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise UsageError("a table of runs needs pandas: pip install 'resflax[pandas]'") from None
    flat = [flat_json(run.experiment) for run in runs]
    repeated = {id(run) for group in form_seed_groups(runs) for run in group.repeated}
    columns: dict[str, tuple[type | None, list[Any]]] = {
        "path": (str, [str(run.path) for run in runs]),
        "state": (str, [run.state for run in runs]),
        "why": (str, [run.why or None for run in runs]),
        "variant": (str, [run.variant for run in runs]),
        "repeated": (bool, [id(run) in repeated for run in runs]),
    }
    for name in dict.fromkeys(name for fields in flat for name in fields):
        columns[name] = (None, [_hashable(fields.get(name)) for fields in flat])
    columns["steps_done"] = (int, [run.steps_done for run in runs])
    for name, kind in _RESULTS.items():
        columns[name] = (kind, [(run.result or {}).get(name) for run in runs])
    columns["images_per_second"] = (float, [run.images_per_second for run in runs])
    return pd.DataFrame(
        {
            name: pd.Series(values, dtype=_dtype(kind or _common_type(values), values))
            for name, (kind, values) in columns.items()
        }
    )


def _hashable(value: Any) -> Any:
    """A JSON value that `groupby` and `drop_duplicates` can take."""
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    if isinstance(value, Mapping):
        return tuple((name, _hashable(part)) for name, part in value.items())
    return value


def _common_type(values: Sequence[Any]) -> type:
    """The type of all values that are not missing, where int and float are float."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 else object


def _dtype(kind: type, values: Sequence[Any]) -> Any:
    """The dtype of a column whose values have this type; some of them may be None."""
    missing = any(value is None for value in values)
    if kind is int:
        return "Int64" if missing else "int64"
    if kind is bool:
        return "boolean" if missing else "bool"
    if kind is float:
        return "float64"
    return None if kind is str else object
