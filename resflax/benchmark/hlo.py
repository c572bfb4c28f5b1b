"""Reads the text of a compiled program: its instructions, their shapes and what they call."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) .*\{$")
_BITS = re.compile(r"[a-z]+(\d+)")


class Shape(NamedTuple):
    """The type and the dimensions of an array."""

    dtype: str
    """XLA's name for the number format, such as f32 or bf16."""
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Number of bytes."""
        bits = _BITS.match(self.dtype)
        return self.size * (max(8, int(bits[1])) // 8 if bits else 1)  # else pred or token

    def __str__(self) -> str:
        return "x".join(map(str, self.dims)) or "1"


@dataclass(frozen=True)
class Instruction:
    """An instruction of a program."""

    name: str
    opcode: str
    results: tuple[Shape, ...]
    """One shape, or those of a tuple's arrays."""
    operands: tuple[str, ...]
    """The names of the instructions that it reads; for a parameter, its number."""
    attributes: str
    """Everything that follows the operands."""

    def attribute(self, name: str) -> str | None:
        """The value of an attribute up to the next comma or space, without its quotes or braces."""
        found = re.search(rf'\b{name}=["{{%]?([^\s"}}]*?)["}},\s]', f"{self.attributes} ")
        return None if found is None else found[1]


@dataclass(frozen=True)
class Program:
    """A compiled program. The name of every instruction is unique in it."""

    name: str
    instructions: Mapping[str, Instruction]
    computations: Mapping[str, tuple[Instruction, ...]]

    def operands(self, instruction: Instruction) -> list[Shape]:
        """The shapes of an instruction's operands; of a tuple, its first array's."""
        return [self.instructions[name].results[0] for name in instruction.operands]

    def called(self, instruction: Instruction) -> tuple[Instruction, ...]:
        """The instructions of a fusion's computation; those of other instructions are empty."""
        if instruction.opcode != "fusion":
            return ()
        return self.computations[instruction.attribute("calls") or ""]

    def parts(self, instruction: Instruction) -> Iterator[Instruction]:
        """The instruction itself, or, of a fusion, everything that is computed in it."""
        if instruction.opcode != "fusion":
            yield instruction
        for part in self.called(instruction):
            yield from self.parts(part)


def read_program(text: str) -> Program:
    """Reads the text that a compiled program has after XLA's optimisations."""
    heading = re.match(r"HloModule ([^\s,]+)", text)
    instructions: dict[str, Instruction] = {}
    computations: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if (found := _INSTRUCTION.match(line)) is not None:
            instruction = _instruction(*found.groups())
            instructions[instruction.name] = instruction
            current.append(instruction)
        elif (found := _COMPUTATION.match(line)) is not None:
            current = computations.setdefault(found[1], [])
    done = {name: tuple(computation) for name, computation in computations.items()}
    return Program(heading[1] if heading else "", instructions, done)


def _instruction(name: str, results: str, opcode: str, rest: str) -> Instruction:
    inside, attributes = _split_at_closing_bracket(rest)
    operands = (inside,) if opcode == "parameter" else tuple(re.findall(r"%([\w.\-]+)", inside))
    shapes = tuple(
        Shape(dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in _SHAPE.findall(results)
    )
    return Instruction(name, opcode, shapes, operands, attributes)


def _split_at_closing_bracket(text: str) -> tuple[str, str]:
    """Text inside a bracket that is already open, and the text after it."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if not depth:
            return text[:place], text[place + 1 :]
    return text, ""
