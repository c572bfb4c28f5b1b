"""Where a training step spends its time: one row for each kind of operation and its shapes.

The times are those of a trace, the shapes those of the compiled program. Operations may run at the
same time. They then share the time equally, so the shares of all rows add up to 1.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from rich.table import Table

from resflax.benchmark.ceilings import Ceilings
from resflax.benchmark.hlo import Instruction, Program
from resflax.benchmark.multiply_adds import describe, kernel_rows, multiply_adds

_CONTROL = {"while", "conditional", "call"}
"""Instructions that only run others, which have times of their own."""

_MOVES = {
    *("bitcast", "broadcast", "concatenate", "constant", "copy", "dynamic-slice", "gather"),
    *("dynamic-update-slice", "get-tuple-element", "iota", "pad", "parameter", "reshape"),
    *("reverse", "slice", "transpose", "tuple"),
}
_REDUCTIONS = {"reduce", "reduce-window", "select-and-scatter"}
_OTHERS = {
    *("all-gather", "all-reduce", "all-to-all", "collective-permute", "partition-id", "replica-id"),
    *("reduce-scatter", "rng", "rng-bit-generator", "scatter", "sort"),
}
_READS_A_PART = {"dynamic-slice", "gather", "slice"}

_FEWEST = 0.005
"""Rows with a smaller share of the step are one row in the table."""

IDLE = "no operation"
"""The kind of the row for the time in which nothing runs."""


class Event(NamedTuple):
    """One execution of an instruction."""

    instruction: str
    start: float
    """In seconds, as is the end."""
    end: float


class _Amounts(NamedTuple):
    """What is added up for a row, each in a step."""

    times: float = 0.0
    seconds: float = 0.0
    multiply_adds: float = 0.0
    moved_bytes: float = 0.0

    def plus(self, other: "_Amounts") -> "_Amounts":
        return _Amounts(*(mine + its for mine, its in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Operation:
    """All instructions of a step that are of the same kind and have the same shapes."""

    kind: str
    """Such as convolution, input gradient, kernel gradient, custom call, or elementwise."""
    shapes: str
    """Empty unless the operation multiplies or is a custom call."""
    times: float
    """Number of executions in a step."""
    seconds: float
    """Time in a step."""
    share: float
    """The time as a fraction of the step."""
    multiply_adds: float
    """Multiply-adds in a step."""
    moved_bytes: float
    """Bytes of all operands and results in a step."""
    flops_per_second: float | None
    """A multiply-add counts as 2; None if there are none."""
    bytes_per_second: float | None
    """None for the time in which nothing runs."""
    share_of_peak: float | None
    """The rate as a fraction of the device's measured one: in matrix products for operations that
    multiply, in copies for all others. What stays in the cache may be faster than a copy."""


@dataclass(frozen=True)
class StepOperations:
    """The operations of the training step of one case."""

    net: str
    batch_size: int
    precision: str
    step_seconds: float
    """Time of a step while it was traced."""
    operations: tuple[Operation, ...]
    """The slowest first."""


def operations_of(
    program: Program, events: Sequence[Event], steps: int, ceilings: Ceilings
) -> tuple[Operation, ...]:
    """Divides the time of a trace among the operations of a program, the slowest first.

    Args:
      program: the program that was traced.
      events: the executions of its instructions.
      steps: number of training steps in which they happened.
      ceilings: the device's limits in the case's precision.
    """
    leaves = [e for e in events if program.instructions[e.instruction].opcode not in _CONTROL]
    seconds, idle = divide_time(leaves)
    total = (sum(seconds.values()) + idle) / steps
    counts = Counter(event.instruction for event in leaves)
    rows = {(IDLE, ""): _Amounts(seconds=idle / steps)}
    for name, count in counts.items():
        instruction, each = program.instructions[name], count / steps
        added = _Amounts(
            each,
            seconds[name] / steps,
            each * multiply_adds(instruction, program),
            each * moved_bytes(instruction, program),
        )
        kind = kind_of(instruction, program)
        rows[kind] = rows.get(kind, _Amounts()).plus(added)
    operations = (_operation(*kind, row, total, ceilings) for kind, row in rows.items())
    return tuple(sorted(operations, key=lambda operation: -operation.seconds))


def _operation(
    kind: str, shapes: str, amounts: _Amounts, total: float, ceilings: Ceilings
) -> Operation:
    """The row of these amounts, in a step of `total` seconds."""
    seconds = amounts.seconds
    flops = 2 * amounts.multiply_adds / seconds if amounts.multiply_adds and seconds else None
    speed = amounts.moved_bytes / seconds if amounts.moved_bytes and seconds else None
    of_peak = None
    if flops is not None:
        of_peak = flops / ceilings.flops_per_second
    elif speed is not None:
        of_peak = speed / ceilings.bytes_per_second
    share = seconds / total if total else 0.0
    return Operation(
        kind,
        shapes,
        **amounts._asdict(),
        share=share,
        flops_per_second=flops,
        bytes_per_second=speed,
        share_of_peak=of_peak,
    )


def divide_time(events: Iterable[Event]) -> tuple[dict[str, float], float]:
    """The seconds of each instruction, and those between the first and the last in which none runs.

    Instructions that run at the same time share it equally.
    """
    changes = [
        change
        for name, start, end in events
        for change in ((start, 1, name), (max(start, end), -1, name))
    ]
    changes.sort(key=lambda change: (change[0], -change[1]))  # at the same time, starts come first
    seconds: dict[str, float] = {name: 0.0 for _, _, name in changes}
    running: Counter[str] = Counter()
    idle = 0.0
    for (time, change, name), (following, _, _) in pairwise(changes):
        running[name] += change
        if not running[name]:
            del running[name]
        if not running:
            idle += following - time
        for other, number in running.items():
            seconds[other] += (following - time) * number / running.total()
    return seconds, idle


def kind_of(instruction: Instruction, program: Program) -> tuple[str, str]:
    """The kind of an instruction, and its shapes if it multiplies or is a custom call.

    A fusion that contains a convolution or a matrix product is of that kind.
    """
    parts = list(program.parts(instruction))
    for part in parts:
        if part.opcode == "convolution":
            return _role(part, program), describe(part, program)
    for opcode, kind in (("dot", "matrix product"), ("custom-call", "custom call")):
        for part in parts:
            if part.opcode == opcode:
                return kind, describe(part, program)
    opcodes = {part.opcode for part in parts}
    if opcodes & _REDUCTIONS:
        return "reduction", ""
    if opcodes & _OTHERS:
        return "other", ""
    return "copy" if opcodes <= _MOVES else "elementwise", ""


def _role(convolution: Instruction, program: Program) -> str:
    """Whether a convolution belongs to the forward pass or computes a gradient.

    JAX notes in an instruction's name from which pass it comes; XLA drops some of these names. A
    kernel's gradient slides the output's gradient over the maps, so that its window is larger than
    its result. (Under a 3x3 kernel this is not so for maps of 3x3 or less.)
    """
    passes = re.findall(r"(transpose\()?jvp\(", convolution.attribute("op_name") or "")
    if passes and not passes[-1]:
        return "convolution"
    window, result = kernel_rows(convolution, program)
    if window > result:
        return "kernel gradient"
    return "input gradient" if passes else "convolution"


def moved_bytes(instruction: Instruction, program: Program) -> int:
    """The bytes of an instruction's operands and results.

    Of an operand that is only sliced or looked up, those parts alone count.
    """
    moved = sum(shape.bytes for shape in instruction.results)
    if instruction.opcode in _READS_A_PART:
        return 2 * moved
    inside = program.called(instruction)
    parameters = {part.operands[0]: part.name for part in inside if part.opcode == "parameter"}
    for number, operand in enumerate(program.operands(instruction)):
        read, parameter = operand.bytes, parameters.get(str(number))
        readers = [part for part in inside if parameter in part.operands]
        if readers and all(reader.opcode in _READS_A_PART for reader in readers):
            read = min(read, sum(reader.results[0].bytes for reader in readers))
        moved += read
    return moved


def operations_table(step: StepOperations, ceilings: Ceilings) -> Table:
    """The operations of a step as a table for a terminal; small rows of a kind are added up."""
    title = (
        f"operations of {step.net}, batch {step.batch_size}, {step.precision}: "
        f"{1e3 * step.step_seconds:,.1f} ms a step under the profiler"
    )
    table = Table(title=title)
    table.add_column("operation", no_wrap=True)
    table.add_column("shapes", overflow="fold")
    for header in ("times", "ms a step", "share", "GFLOP/s", "GB/s", "of peak"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in _shortened(step.operations, ceilings):
        flops, speed, of_peak = row.flops_per_second, row.bytes_per_second, row.share_of_peak
        table.add_row(
            row.kind,
            row.shapes,
            f"{row.times:,.4g}" if row.times else "",
            f"{1e3 * row.seconds:,.2f}",
            f"{row.share:.1%}",
            "" if flops is None else f"{flops / 1e9:,.1f}",
            "" if speed is None or flops is not None else f"{speed / 1e9:,.1f}",
            "" if of_peak is None else f"{of_peak:.0%}",
        )
    return table


def _shortened(operations: Sequence[Operation], ceilings: Ceilings) -> list[Operation]:
    """The operations, with one row in place of all small ones of a kind."""
    total = sum(operation.seconds for operation in operations)
    small: dict[str, list[Operation]] = {}
    rows = []
    for operation in operations:
        if operation.shapes and operation.share < _FEWEST:
            small.setdefault(operation.kind, []).append(operation)
        else:
            rows.append(operation)
    for kind, added in small.items():
        shapes = added[0].shapes if len(added) == 1 else f"{len(added)} smaller ones"
        amounts = _Amounts()
        for row in added:
            own = _Amounts(row.times, row.seconds, row.multiply_adds, row.moved_bytes)
            amounts = amounts.plus(own)
        rows.append(_operation(kind, shapes, amounts, total, ceilings))
    return rows
