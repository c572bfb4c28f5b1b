"""Reads a pickle as data: nothing that it names is imported, and nothing is called.

A pickle is a program for a small stack machine, which may call any function of any module. Here the
machine only builds containers, numbers and texts. A global stays a `Name`, and whatever the pickle
would make by a call stays an `Unmade` that says how it would have been made. So the classes of a
trainer need not be installed, and a malicious file has nothing to run.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Name:
    """A global of a pickle, which was not looked up."""

    text: str
    """Module and name, such as "argparse.Namespace"."""


@dataclass(eq=False)
class Unmade:
    """An object of a pickle that was not made."""

    maker: Any
    """What the pickle would call: a `Name`, or another object of the pickle."""
    arguments: tuple[Any, ...] = ()
    state: Any = None
    """What the pickle would set on the object after the call."""
    items: dict[Any, Any] = field(default_factory=dict)
    """What the pickle would set in it by key, if it is a mapping."""
    elements: list[Any] = field(default_factory=list)
    """What the pickle would append or add to it, if it is a list or a set."""


def read_pickle(file: Any, refer: Callable[[Any], Any]) -> Any:
    """Reads one pickle, and leaves the file where it ends. All protocols are known.

    Args:
      file: a binary file, which may continue after the pickle.
      refer: returns what a persistent id stands for. It is called with the id as it is read.

    Returns:
      None, bool, int, float, str, bytes, list, tuple, dict, `Name`, `Unmade`, or what `refer`
      returned. An OrderedDict is a dict.

    Raises:
      Exception: of nearly any kind, if the bytes are not a whole pickle.
    """
    machine = _Machine(refer)
    for opcode, argument, _ in pickletools.genops(file):
        machine.execute(opcode.name, argument)
    return machine.pop()


_ORDERED = Name("collections.OrderedDict")

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_IGNORED = {"PROTO", "FRAME", "STOP", "READONLY_BUFFER"}
_MARK = object()


class _Machine:
    """The stack and the memo."""

    def __init__(self, refer: Callable[[Any], Any]) -> None:
        self.refer = refer
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing")
        return value

    def pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def execute(self, operation: str, argument: Any) -> None:
        match operation:
            case _ if operation in _IGNORED:
                pass
            case _ if operation in _CONSTANTS:
                self.push(_CONSTANTS[operation])
            case "MARK":
                self.push(_MARK)
            case "POP":
                self.stack.pop()
            case "POP_MARK":
                self.pop_to_mark()
            case "DUP":
                self.push(self.stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.push(self.memo[argument])
            case "EMPTY_LIST":
                self.push([])
            case "EMPTY_TUPLE":
                self.push(())
            case "EMPTY_DICT":
                self.push({})
            case "EMPTY_SET":
                self.push(Unmade(Name("builtins.set")))
            case "LIST":
                self.push(self.pop_to_mark())
            case "TUPLE":
                self.push(tuple(self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(operation[-1])
                self.push(tuple(self.pop() for _ in range(count))[::-1])
            case "FROZENSET":
                self.push(Unmade(Name("builtins.frozenset"), elements=self.pop_to_mark()))
            case "DICT":
                values = self.pop_to_mark()
                self.push({})
                self.set_items(values)
            case "APPEND":
                value = self.pop()
                self.add([value])
            case "APPENDS" | "ADDITEMS":
                values = self.pop_to_mark()
                self.add(values)
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self.set_items([key, value])
            case "SETITEMS":
                values = self.pop_to_mark()
                self.set_items(values)
            case "PERSID":
                self.push(self.refer(argument))
            case "BINPERSID":
                self.push(self.refer(self.pop()))
            case _ if not self.make(operation, argument):
                if argument is None:
                    raise ValueError(f"the operation {operation} is unknown")
                self.push(argument)  # a number, a text or bytes

    def make(self, operation: str, argument: Any) -> bool:
        """Does an operation that would look up or call something; False if it is another one."""
        match operation:
            case "GLOBAL":
                self.push(Name(argument.replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                self.push(Name(f"{_text(module)}.{_text(name)}"))
            case "INST":
                self.push(Unmade(Name(argument.replace(" ", ".", 1)), tuple(self.pop_to_mark())))
            case "OBJ":
                maker, *arguments = self.pop_to_mark()
                self.push(Unmade(maker, tuple(arguments)))
            case "REDUCE" | "NEWOBJ":
                arguments, maker = self.pop(), self.pop()
                self.push(_called(maker, arguments))
            case "NEWOBJ_EX":
                keywords, arguments, maker = self.pop(), self.pop(), self.pop()
                self.push(Unmade(maker, tuple(arguments), keywords))
            case "BUILD":
                state, built = self.pop(), self.stack[-1]
                if isinstance(built, Unmade):
                    built.state = state
            case "EXT1" | "EXT2" | "EXT4" | "NEXT_BUFFER":
                raise ValueError(f"the operation {operation} needs what is not in the file")
            case _:
                return False
        return True

    def add(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Unmade):
            target.elements += values
        elif isinstance(target, list):
            target += values
        else:
            raise TypeError(f"nothing can be appended to a {type(target).__name__}")

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        items = target.items if isinstance(target, Unmade) else target
        if not isinstance(items, dict):
            raise TypeError(f"a {type(target).__name__} has no items")
        for key, value in zip(values[::2], values[1::2], strict=True):
            items[_key(key)] = value


def _called(maker: Any, arguments: Any) -> Any:
    if not isinstance(arguments, tuple):
        raise TypeError("the arguments of a call are not a tuple")
    if isinstance(maker, Name) and maker == _ORDERED:
        pairs = arguments[0] if arguments else []
        return {_key(key): value for key, value in pairs}
    return Unmade(maker, arguments)


def _key(key: Any) -> Any:
    """The key of an item. Keys that are neither texts, numbers nor names are told apart only."""
    simple = key is None or isinstance(key, str | bytes | int | float | Name)
    return key if simple else Unmade(key)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("the name of a global is not a text")
    return value


def class_name(value: Any) -> str:
    """The name of the class of something that `read_pickle` returned, for people to read."""
    while isinstance(value, Unmade):
        value = value.maker
    if isinstance(value, Name):
        return printable(value.text if len(value.text) <= 60 else f"{value.text[:57]}...")
    return type(value).__name__


def printable(text: str) -> str:
    """The text on one line, without characters that would steer a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
