"""Traces a network to the graph of its layers and operations.

The network is called as in evaluation, without computing anything. Each layer that is known here
becomes one node; everything else that the network computes is read from the traced program. So the
graph has what the network does, and nothing else.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resflax.declarations.models import Model
from resflax.declarations.own import own_classes
from resflax.models import build
from resflax.models.calls import ENTER, LAYER, LEAVE, Recorder
from resflax.models.graph import Call, Graph, Node, without_unused
from resflax.models.operations import Constant, Value, operation
from resflax.models.own_parts import check_own, explaining
from resflax.models.program_counts import programs_in


def trace(config: Model, num_classes: int, image_shape: tuple[int, int, int]) -> Graph:
    """The graph of a network for one (H, W, C) image, which is its first node.

    Raises `UsageError` if the network cannot take images of that size, or if a user's own class may
    not be run, fails, or returns what it must not.
    """
    module = build(config, num_classes)
    check_own(config, module, num_classes, image_shape)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    # Networks of resflax's own classes have parameters in layers only, which are not looked into.
    has_own = bool(own_classes(config))
    recorder = Recorder(has_variables=has_own)
    with explaining(config):
        variables: Any = {}
        if has_own:
            key = jax.random.key(0)
            variables = jax.eval_shape(lambda x: module.init(key, x, train=False), image)
        with nn.intercept_methods(recorder.intercept):
            program = jax.make_jaxpr(lambda x, v: module.apply(v, x, train=False))(image, variables)
    reader = _Reader()
    given: list[Value] = [reader.add(Node("input", (), image.shape))]
    for keys, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        _, *owner, name = (key.key for key in keys)
        node = Node("parameter", (), leaf.shape, tuple(owner), {"name": name})
        given.append(reader.add(node))
    results = reader.read(program.jaxpr, program.consts, given)
    outputs = tuple(value for value in results if isinstance(value, int))
    return without_unused(Graph(tuple(reader.nodes), outputs, tuple(reader.calls)))


_CALLS = {
    "jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2", "custom_jvp_call",
    "custom_vjp_call",
}  # fmt: skip
"""Operations that only call another program."""


class _Reader:
    """Reads a program equation by equation, and makes nodes."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.calls: list[Call] = []
        self._open: list[int] = []
        """Places in `calls` of the modules that the equations now stand in."""

    def add(self, node: Node) -> int:
        """Adds a node, and returns its number."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def read(self, program: Any, constants: Any, given: list[Value]) -> list[Value]:
        """The results of a program whose arguments have the given values."""
        known: dict[Any, Value] = dict(zip(program.invars, given, strict=True))
        known |= dict(zip(program.constvars, map(_constant, constants), strict=True))

        def value_of(atom: Any) -> Value:
            return _constant(atom.val) if hasattr(atom, "val") else known[atom]

        for equation in program.eqns:
            results = self._results(equation, [value_of(atom) for atom in equation.invars])
            known |= dict(zip(equation.outvars, results, strict=True))
        return [value_of(atom) for atom in program.outvars]

    def _results(self, equation: Any, operands: list[Value]) -> list[Value]:
        name = equation.primitive.name
        read = tuple(value for value in operands if isinstance(value, int))
        if name == LAYER.name:
            kind, layer, details = (equation.params[n] for n in ("kind", "path", "details"))
            shape = tuple(equation.outvars[0].aval.shape)
            given = tuple(n for n in read if self.nodes[n].kind != "parameter")
            return [self.add(Node(kind, given, shape, layer, dict(details)))]
        if name == ENTER.name:
            path, module = equation.params["path"], equation.params["name"]
            self._open.append(len(self.calls))
            self.calls.append(Call(path, module, read, (), len(self.nodes)))
            return operands
        if name == LEAVE.name:
            place = self._open.pop()
            self.calls[place] = dataclasses.replace(self.calls[place], outputs=read)
            return operands
        programs = programs_in(equation.params)
        path = self.calls[self._open[-1]].path if self._open else ()
        if _is_activation(equation, read):
            shape = tuple(equation.outvars[0].aval.shape)
            return [self.add(Node(equation.params["name"], read, shape, path))]
        if name in _CALLS and len(programs) == 1:
            closed = next(
                p for p in equation.params.values() if getattr(p, "jaxpr", p) is programs[0]
            )
            return self.read(programs[0], getattr(closed, "consts", ()), operands)
        made = operation(equation, operands, self.nodes, path)
        value = self.add(made) if isinstance(made, Node) else made
        return [value] * len(equation.outvars)


def _is_activation(equation: Any, read: tuple[int, ...]) -> bool:
    """Whether an equation calls a function of `jax.nn` that maps an array to one of its shape."""
    name = equation.params.get("name")
    if len(read) != 1 or len(equation.outvars) != 1 or not isinstance(name, str):
        return False
    shape = equation.outvars[0].aval.shape
    given = max((v.aval for v in equation.invars), key=lambda aval: math.prod(aval.shape))
    return hasattr(jax.nn, name) and given.shape == shape


def _constant(value: Any) -> Constant:
    try:
        array = np.asarray(value)
    except Exception:  # a random key, or another array that NumPy does not know
        return Constant(None)
    if array.size == 1 and array.dtype.kind in "fiub":
        return Constant(float(array.reshape(())))
    return Constant(None)
