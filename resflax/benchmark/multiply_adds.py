"""The multiply-adds of an instruction, from its shapes, and a short text that describes it.

Products with the padding and with zeros between pixels count, because they are computed.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from resflax.benchmark.hlo import Instruction, Program, Shape

Count = Callable[[Instruction, Program], int]
Describe = Callable[[Instruction, Program], str]


class _Known(NamedTuple):
    """How instructions of one kind are counted and described."""

    multiply_adds: Count
    describe: Describe


def multiply_adds(instruction: Instruction, program: Program) -> int:
    """The multiply-adds of an instruction; for a fusion, those of everything in it."""
    total = 0
    for part in program.parts(instruction):
        known = _known(part)
        total += 0 if known is None else known.multiply_adds(part, program)
    return total


def describe(instruction: Instruction, program: Program) -> str:
    """The shapes of a convolution, a matrix product or a custom call; of others, nothing."""
    known = _known(instruction)
    if known is not None:
        return known.describe(instruction, program)
    if instruction.opcode == "custom-call":
        shapes = ", ".join(str(shape) for shape in instruction.results)
        return f"{instruction.attribute('custom_call_target')} {shapes}"
    return ""


def _known(instruction: Instruction) -> _Known | None:
    if instruction.opcode != "custom-call":
        return _OF_OPCODES.get(instruction.opcode)
    target = instruction.attribute("custom_call_target") or ""
    return _OF_TARGETS.get(re.sub(r"_v\d+$", "", target))


def kernel_rows(instruction: Instruction, program: Program) -> tuple[int, int]:
    """The rows of a convolution's kernel, and those of its result."""
    _, kernel, result = _labels(instruction)
    shape = program.operands(instruction)[1]
    return (
        shape.dims[kernel.index("0")],
        instruction.results[0].dims[result.index("0")],
    )


def _labels(instruction: Instruction) -> list[str]:
    """What each dimension of a convolution's maps, kernel and result stands for."""
    return re.split("_|->", instruction.attribute("dim_labels") or "")


def _convolution(instruction: Instruction, program: Program) -> int:
    kernel = program.operands(instruction)[1]
    outputs = kernel.dims[_labels(instruction)[1].index("o")]
    return instruction.results[0].size * kernel.size // max(1, outputs)


def _convolution_text(instruction: Instruction, program: Program) -> str:
    found = re.search(r"window=\{size=(\S+?)(?: stride=(\S+?))?[ }]", instruction.attributes)
    window = found[1] if found else "1x1"
    stride = f" / {found[2]}" if found and found[2] else ""
    return f"{window}{stride}: {program.operands(instruction)[0]} -> {instruction.results[0]}"


def _product(instruction: Instruction, program: Program) -> int:
    left = program.operands(instruction)[0]
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
    return instruction.results[0].size * math.prod(left.dims[axis] for axis in axes)


def _product_text(instruction: Instruction, program: Program) -> str:
    left, right = program.operands(instruction)[:2]
    return f"{left} x {right} -> {instruction.results[0]}"


# --- Our own kernels (kernels/convolution.py)


def _taps(instruction: Instruction, program: Program) -> int:
    """Multiply-adds for one element of the result: the size of one output's kernel."""
    return math.prod(program.operands(instruction)[0].dims[:3])


def _own_forward(instruction: Instruction, program: Program) -> int:
    return instruction.results[0].size * _taps(instruction, program)


def _own_backward(instruction: Instruction, program: Program) -> int:
    gradient = program.operands(instruction)[3]
    passes = 2 if len(instruction.results) > 3 else 1  # the gradient of the maps may be left out
    return passes * gradient.size * _taps(instruction, program)


def _own_text(instruction: Instruction, program: Program) -> str:
    """The target, and the shapes of a convolution of maps that may be in several arrays."""
    kernel, *others = program.operands(instruction)
    forward = len(instruction.results) == 2
    images, result = (others[2:], instruction.results[0]) if forward else (others[5:], others[2])
    maps = Shape(kernel.dtype, (*images[0].dims[:3], sum(shape.dims[3] for shape in images)))
    target = instruction.attribute("custom_call_target")
    return f"{target} {kernel.dims[0]}x{kernel.dims[1]}: {maps} -> {result}"


_OF_OPCODES = {
    "convolution": _Known(_convolution, _convolution_text),
    "dot": _Known(_product, _product_text),
}

_OF_TARGETS = {
    "resflax_forward": _Known(_own_forward, _own_text),
    "resflax_backward": _Known(_own_backward, _own_text),
}
"""By the target of a custom call, without its version."""
