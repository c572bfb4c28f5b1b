"""Stacks the variables of a network's equal units, so that these units are compiled once.

All units of a stage except the first are equal. The form of a network that is trained (`build(...,
for_training=True)`) stacks their variables: its `stage2_units/conv1/kernel` (n - 1, 3, 3, C, C)
stands for the kernels `stage2_unit2/conv1/kernel` to `stage2_unit{n}/conv1/kernel` of the other
form. A run trains and saves the stacked form; code that reads a network by the names of its units
calls `unstack` first.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

_UNIT = re.compile(r"(stage\d+)_unit(\d+)")
_UNITS = re.compile(r"(stage\d+)_units")


def stack(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Stacks the units after the first in each stage that has more than two units.

    Args:
      variables: one collection of variables, such as `params`, by module path.
    """
    stacked = dict(variables)
    stages: dict[str, list[Any]] = {}
    for name in sorted(filter(_UNIT.fullmatch, variables), key=_number):
        if _number(name) > 1:
            stages.setdefault(name.partition("_")[0], []).append(variables[name])
    for stage, units in stages.items():
        if len(units) > 1:
            for number in range(2, len(units) + 2):
                del stacked[f"{stage}_unit{number}"]
            stacked[f"{stage}_units"] = jax.tree.map(lambda *leaves: _stack_leaves(leaves), *units)
    return stacked


def unstack(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes `stack`. Other variables stay as they are."""
    unstacked = dict(variables)
    for name in variables:
        match = _UNITS.fullmatch(name)
        if match:
            units = unstacked.pop(name)
            for place in range(len(jax.tree.leaves(units)[0])):
                unit = jax.tree.map(lambda leaf, place=place: leaf[place], units)
                unstacked[f"{match[1]}_unit{place + 2}"] = unit
    return unstacked


def is_stacked(name: str) -> bool:
    """Whether a network's top-level module of this name stands for stacked units."""
    return _UNITS.fullmatch(name) is not None


def _number(unit: str) -> int:
    match = _UNIT.fullmatch(unit)
    assert match is not None
    return int(match[2])


def _stack_leaves(leaves: tuple[Any, ...]) -> Any:
    if all(isinstance(leaf, np.ndarray) for leaf in leaves):
        return np.stack(leaves)
    return jax.numpy.stack(leaves)
