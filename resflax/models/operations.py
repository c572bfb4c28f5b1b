"""Names the operations of a traced program: equations of JAX become nodes of a graph.

This file does not import JAX.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from resflax.models.graph import Node


@dataclass(frozen=True)
class Constant:
    """A value of a program that depends neither on images nor on parameters."""

    value: float | None
    """The number that all of its elements are; None if that is not known."""


Value = int | Constant
"""A variable of a program stands for the number of a node, or for a constant."""

_SAME_ELEMENTS = {
    "broadcast_in_dim", "convert_element_type", "copy", "copy_p", "expand_dims", "reduce_precision",
    "reshape", "squeeze", "stop_gradient",
}  # fmt: skip
"""Operations that leave a constant the constant that it is."""

_BINARY = {
    "add": "add",
    "add_any": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "max": "maximum",
    "min": "minimum",
    "pow": "power",
}

_UNARY = {"logistic": "sigmoid", "neg": "negate", "integer_pow": "power"}


def operation(
    equation: Any, operands: Sequence[Value], nodes: Sequence[Node], path: tuple[str, ...]
) -> Value | Node:
    """What an equation computes: a new node, or a value that is there already.

    Changes of the number format, and of axes that have one element, change no value. A node does
    not read the parameters that it uses: its detail `parameters` has their places among the
    operands and their paths. Only what is computed of parameters alone reads them as nodes.

    Args:
      equation: an equation of a program of `jax.make_jaxpr`.
      operands: the values of its arguments.
      nodes: the nodes so far.
      path: the module that the equation stands in.
    """
    name = equation.primitive.name
    read = tuple(value for value in operands if isinstance(value, int))
    if not read:
        first = operands[0] if operands else Constant(None)
        return first if name in _SAME_ELEMENTS else Constant(None)
    kept = [v.aval for v in equation.outvars if type(v).__name__ != "DropVar"]
    shape = tuple(kept[0].shape) if kept else ()
    parameters = tuple(
        (place, (*nodes[value].path, nodes[value].details["name"]))
        for place, value in enumerate(operands)
        if isinstance(value, int) and nodes[value].kind == "parameter"
    )
    if len(parameters) == len(read):
        parameters = ()
    read = tuple(value for value in read if not parameters or nodes[value].kind != "parameter")

    def new(kind: str, inputs: tuple[int, ...] = read, **details: Any) -> Node:
        if parameters:
            details["parameters"] = parameters
        return Node(kind, inputs, shape, path, details)

    if name in _BINARY:
        return _binary(_BINARY[name], operands, nodes, new)
    rule = _RULES.get(name)
    if rule is not None:
        return rule(equation, read, new)
    kind = _UNARY.get(name, name.replace("_", " "))
    details = {key: equation.params[key] for key in ("y", "length") if key in equation.params}
    return new(kind, **details)


def _binary(
    kind: str, operands: Sequence[Value], nodes: Sequence[Node], new: Callable[..., Node]
) -> Value | Node:
    """An operation of two operands, of which one may be a constant."""
    for place, other in enumerate(operands):
        value = operands[1 - place]
        if not isinstance(value, int):
            continue
        if isinstance(other, Constant):
            return _with_constant(kind, value, nodes[value], other.value, place == 0, new)
    return new(kind)


def _with_constant(
    kind: str,
    value: int,
    node: Node,
    constant: float | None,
    comes_first: bool,
    new: Callable[..., Node],
) -> Value | Node:
    reversible = kind in ("add", "multiply", "maximum", "minimum")
    if kind in ("divide", "multiply") and (reversible or not comes_first):
        average = _average(node, constant if kind == "divide" or not constant else 1 / constant)
        if average is not None:
            average_kind, details = average
            return new(average_kind, node.inputs, **details)
    neutral = {"add": 0, "subtract": 0, "multiply": 1, "divide": 1, "power": 1}.get(kind)
    if constant is not None and constant == neutral and (reversible or not comes_first):
        return value
    if kind == "maximum" and constant == 0:
        return new("relu", (value,))
    return new(kind, (value,), constant=constant, comes_first=comes_first)


def _average(node: Node, divisor: float | None) -> tuple[str, dict[str, Any]] | None:
    """The average that a sum becomes if it is divided, with its details; None if it is none."""
    if node.kind == "sum" and divisor is not None and _is(divisor, node.details["count"]):
        if node.details["axes"] == (1, 2):
            return "global average", {}
        return "mean", {"axes": node.details["axes"]}
    if node.kind == "window sum":
        if divisor is None:  # how many pixels of each window exist
            return "average pool", {**node.details, "counted": "existing"}
        if _is(divisor, math.prod(node.details["size"])):
            return "average pool", {**node.details, "counted": "all"}
    return None


def _is(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-6)


def _reshape(equation: Any, read: tuple[int, ...], new: Callable[..., Node]) -> Value | Node:
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    if [n for n in before if n != 1] == [n for n in after if n != 1]:
        return read[0]
    return new("flatten" if len(after) == 2 else "reshape", read[:1])


def _transpose(equation: Any, read: tuple[int, ...], new: Callable[..., Node]) -> Value | Node:
    order, shape = equation.params["permutation"], equation.invars[0].aval.shape
    moved = [axis for axis in order if shape[axis] != 1]
    return read[0] if moved == sorted(moved) else new("transpose", order=tuple(order))


def _slice(equation: Any, read: tuple[int, ...], new: Callable[..., Node]) -> Value | Node:
    before, starts = equation.invars[0].aval.shape, equation.params["start_indices"]
    limits = tuple(equation.params["limit_indices"])
    steps = tuple(equation.params["strides"] or (1,) * len(before))
    if tuple(before) == limits and not any(starts):
        if set(steps) == {1}:
            return read[0]
        if len(steps) == 4 and steps[0] == steps[3] == 1:
            return new("subsample", stride=steps[1:3])
    return new("slice", begin=tuple(starts), end=limits, steps=steps)


def _pad(equation: Any, read: tuple[int, ...], new: Callable[..., Node]) -> Value | Node:
    config = [tuple(map(int, axis)) for axis in equation.params["padding_config"]]
    if not any(map(any, config)):
        return read[0]
    *others, (before, after, between) = config
    if any(map(any, others)) or between or len(read) > 1:
        return new("pad", config=tuple(config))
    return new("pad maps", before=before, after=after)


def _concatenate(equation: Any, read: tuple[int, ...], new: Callable[..., Node]) -> Value | Node:
    if len(equation.invars) == 1:
        return read[0]
    return new("concatenate", axis=equation.params["dimension"])


def _sum(equation: Any, read: tuple[int, ...], new: Callable[..., Node]) -> Value | Node:
    axes, shape = tuple(equation.params["axes"]), equation.invars[0].aval.shape
    return new("sum", axes=axes, count=math.prod(shape[axis] for axis in axes))


def _pool(kind: str) -> Callable[[Any, tuple[int, ...], Callable[..., Node]], Value | Node]:
    def rule(equation: Any, read: tuple[int, ...], new: Callable[..., Node]) -> Value | Node:
        return new(
            kind,
            size=tuple(equation.params["window_dimensions"])[1:-1],
            stride=tuple(equation.params["window_strides"])[1:-1],
            padding=tuple(map(tuple, equation.params["padding"]))[1:-1],
        )

    return rule


def _unchanged(equation: Any, read: tuple[int, ...], new: Callable[..., Node]) -> Value | Node:
    return read[0]


_RULES: dict[str, Callable[[Any, tuple[int, ...], Callable[..., Node]], Value | Node]] = {
    **dict.fromkeys(_SAME_ELEMENTS, _unchanged),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    "transpose": _transpose,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "reduce_sum": _sum,
    "reduce_window_max": _pool("max pool"),
    "reduce_window_sum": _pool("window sum"),
}
