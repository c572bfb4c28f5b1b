"""Draws the first variables of a network.

Flax derives the key of each parameter from the network's key and a number, which is a hash of the
parameter's path. So equal units of a residual network draw their weights by one program, from
different keys. That program is taken from the second unit of a stage and mapped over the keys of
all of them. Traced unit by unit, a network of 600 units would take a minute.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from resflax.models.equal_units import skip_later_units
from resflax.models.residual import ResNetModule

Array = jax.Array
Draw = tuple[str | int, ...]
"""A draw of a key: the names of a module's path, and the number of the draw in that module."""


def draw_variables(module: nn.Module, key: Array, images: jax.ShapeDtypeStruct) -> dict[str, Any]:
    """Draws `params` and `batch_stats` with the numbers that `module.init` gives them.

    The network does not run. Equal units of a residual network are stacked (`models.stacking`). The
    function is meant to be traced.
    """

    def draw(key: Array) -> dict[str, Any]:
        return dict(module.lazy_init(key, images, train=False))

    if not isinstance(module, ResNetModule) or module.for_training:
        return draw(key)
    with nn.intercept_methods(skip_later_units):
        program, shapes = jax.make_jaxpr(draw, return_shape=True)(key)
    paths = list(flatten_dict(shapes))
    draws = _draws(program, {path[1:-1] for path in paths})
    if draws is None:
        return draw(key)
    if jnp.issubdtype(key.dtype, jnp.uint32):
        key = jax.random.wrap_key_data(key)
    variables = {}
    for top in dict.fromkeys(path[1] for path in paths):  # for each module of the network
        stage, unit, _ = top.partition("_unit2")
        names, stacked = [top], False
        if unit:
            count = module.config.units_per_stage[int(stage.removeprefix("stage")) - 1]
            names, stacked = [f"{stage}_unit{n}" for n in range(2, count + 1)], count > 2
        wanted = [number for number, path in enumerate(paths) if path[1] == top]
        own: dict[int, Draw] = {
            number: draw[1:] for number, draw in draws.items() if draw[0] == top
        }
        numbers = np.array(
            [[_number((name, *rest)) for rest in own.values()] for name in names], np.uint32
        )
        values = _evaluate(program, wanted, list(own), key, numbers)
        for number, value in zip(wanted, values, strict=True):
            collection, _, *inner = paths[number]
            name = f"{stage}_units" if stacked else top
            variables[collection, name, *inner] = value if stacked else value[0]
    return dict(unflatten_dict(variables))


def _number(draw: Draw) -> int:
    """The number from which Flax derives the key of a draw."""
    digest = hashlib.sha1(usedforsecurity=False)
    for part in draw:
        if isinstance(part, int):
            digest.update(part.to_bytes((part.bit_length() + 7) // 8))
        else:
            digest.update(part.encode())
    return int.from_bytes(digest.digest()[:4])


def _draws(program: ClosedJaxpr, modules: set[tuple[str, ...]]) -> dict[int, Draw] | None:
    """The draws of a program that takes a key, by the numbers that it folds into the key.

    Returns None if the program uses its key for anything else, or folds in an unknown number:
    then this version of Flax, or a part of a user's own, derives keys in another way.
    """
    roots, numbers = list(program.jaxpr.invars), []
    for equation in program.jaxpr.eqns:
        if not any(atom is root for atom in equation.invars for root in roots):
            continue
        if equation.primitive.name == "random_wrap":
            roots += equation.outvars
        elif (number := _folded(equation)) is not None:
            numbers.append(number)
        else:
            return None
    known: dict[int, Draw] = {}
    for inside in {path[:end] for path in modules for end in range(1, len(path) + 1)}:
        for count in range(1, len(numbers) + 1):
            known[_number((*inside, count))] = (*inside, count)
    if not known.keys() >= set(numbers):
        return None
    return {number: known[number] for number in numbers}


def _folded(equation: Any) -> int | None:
    """The constant number that an equation folds into a key; None for all other equations."""
    if equation.primitive.name != "random_fold_in" or not isinstance(equation.invars[1], Literal):
        return None
    return int(equation.invars[1].val)


def _evaluate(
    program: ClosedJaxpr, wanted: Sequence[int], own: Sequence[int], key: Array, numbers: np.ndarray
) -> list[Array]:
    """Evaluates some results of a program once for each row of numbers, and stacks them.

    Args:
      program: the program, which takes a key.
      wanted: the places of the results.
      own: the numbers that the program folds into its key for these results.
      key: the key.
      numbers: (N, len(own)) the numbers to fold in instead.
    """
    jaxpr = program.jaxpr
    results = [jaxpr.outvars[place] for place in wanted]
    needed = {atom for atom in results if not isinstance(atom, Literal)}
    equations: list[Any] = []
    keys: dict[int, Any] = {}  # by their numbers
    for equation in reversed(jaxpr.eqns):
        if needed.isdisjoint(equation.outvars):
            continue
        number = _folded(equation)
        if number is not None and number in own:
            keys[number] = equation.outvars[0]
        else:
            needed.update(atom for atom in equation.invars if not isinstance(atom, Literal))
            equations.append(equation)
    from_keys = jaxpr.replace(
        invars=list(keys.values()),
        outvars=results,
        eqns=equations[::-1],
        debug_info=jaxpr.debug_info._replace(arg_names=None, result_paths=None),
    )
    columns = numbers[:, [list(own).index(number) for number in keys]]
    fold = jax.vmap(jax.vmap(partial(jax.random.fold_in, key)))
    evaluate = jaxpr_as_fun(ClosedJaxpr(from_keys, program.consts))
    return list(
        jax.vmap(lambda row: evaluate(*row), axis_size=len(numbers))(fold(jnp.asarray(columns)))
    )
