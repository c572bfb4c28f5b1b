"""Counts the multiply-adds of a traced program: those of its convolutions and matrix products."""

import math
from collections import Counter
from typing import Any


def count_multiply_adds(program: Any) -> dict[str, int]:
    """The multiply-adds of a program of `jax.make_jaxpr`, by the scopes that they stand in.

    Names are joined by slashes. A multiply-add counts as 1. Those on padding count, as in a count
    from the shapes of layers; those on the zeros that a transposed convolution puts between pixels
    do not. The body of a loop counts as often as it runs, and the costliest branch of a choice
    counts. A loop that runs until a condition is met counts once, since nobody knows how often it
    runs.
    """
    counts: Counter[str] = Counter()
    _add(counts, program.jaxpr, "", 1)
    return dict(counts)


def _add(counts: Counter[str], jaxpr: Any, scope: str, times: int) -> None:
    for equation in jaxpr.eqns:
        inner_scope = _joined(scope, str(equation.source_info.name_stack))
        name = equation.primitive.name
        if name == "conv_general_dilated":
            counts[inner_scope] += times * _of_convolution(equation)
        elif name == "dot_general":
            counts[inner_scope] += times * _of_product(equation)
        elif name == "cond":
            branches = []
            for branch in equation.params["branches"]:
                branches.append(Counter[str]())
                _add(branches[-1], branch.jaxpr, inner_scope, times)
            counts.update(max(branches, key=lambda branch: sum(branch.values())))
        else:
            repeated = times * equation.params["length"] if name == "scan" else times
            for inner in programs_in(equation.params):
                _add(counts, inner, inner_scope, repeated)


def _joined(outer: str, inner: str) -> str:
    return f"{outer}/{inner}".strip("/")


def programs_in(params: dict[str, Any]) -> list[Any]:
    """The programs that an equation runs. Rules for gradients are functions, and not among them."""
    programs = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            program = getattr(item, "jaxpr", item)
            if hasattr(program, "eqns"):
                programs.append(program)
    return programs


def _of_convolution(equation: Any) -> int:
    numbers = equation.params["dimension_numbers"]
    images, kernel = (v.aval.shape for v in equation.invars)
    result = equation.outvars[0].aval.shape
    taps = math.prod(kernel) // kernel[numbers.rhs_spec[0]]  # of one feature map of the result
    if max(equation.params["lhs_dilation"], default=1) > 1:
        # Each pixel of a transposed convolution meets every tap once.
        places = math.prod(images[axis] for axis in numbers.lhs_spec[2:])
        return int(result[numbers.out_spec[0]] * places * taps * result[numbers.out_spec[1]])
    return int(math.prod(result) * taps)


def _of_product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    first = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(first[a] for a in contracted)
