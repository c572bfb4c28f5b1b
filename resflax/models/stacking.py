"""Variables of a network whose equal units are stacked, so that they are compiled once.

In a stage all units but the first are equal. A stacked network (`build(..., stacked=True)`) has
their variables in one place: `stage2_units/conv1/kernel` is (n - 1, 3, 3, C, C), where others have
`stage2_unit2/conv1/kernel` to `stage2_unit{n}/conv1/kernel`. A run trains and saves the stacked
form; whoever reads a network by its names takes it apart.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

_UNIT = re.compile(r"(stage\d+)_unit(\d+)")
_UNITS = re.compile(r"(stage\d+)_units")


def stack(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Stacks all units but the first of every stage that has more than two.

    Args:
      variables: one collection by module path, such as `params`.
    """
    found = dict(variables)
    stages: dict[str, list[Any]] = {}
    for name in sorted(filter(_UNIT.fullmatch, variables), key=_number):
        if _number(name) > 1:
            stages.setdefault(name.partition("_")[0], []).append(found[name])
    for stage, units in stages.items():
        if len(units) > 1:
            for number in range(2, len(units) + 2):
                del found[f"{stage}_unit{number}"]
            found[f"{stage}_units"] = jax.tree.map(lambda *leaves: _stacked(leaves), *units)
    return found


def unstack(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Undoes `stack`; leaves other variables as they are."""
    found = dict(variables)
    for name in variables:
        match = _UNITS.fullmatch(name)
        if match:
            units = found.pop(name)
            for place in range(len(jax.tree.leaves(units)[0])):
                unit = jax.tree.map(lambda leaf, place=place: leaf[place], units)
                found[f"{match[1]}_unit{place + 2}"] = unit
    return found


def is_stacked(name: str) -> bool:
    """Whether a module of this name, at the top of the network, is units that are stacked."""
    return _UNITS.fullmatch(name) is not None


def _number(unit: str) -> int:
    match = _UNIT.fullmatch(unit)
    assert match is not None
    return int(match[2])


def _stacked(leaves: tuple[Any, ...]) -> Any:
    if all(isinstance(leaf, np.ndarray) for leaf in leaves):
        return np.stack(leaves)
    return jax.numpy.stack(leaves)
