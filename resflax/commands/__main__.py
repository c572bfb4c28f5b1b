"""Trains, measures and compares residual and dense networks: the program `resflax`.

usage: resflax COMMAND [ARGUMENT ...]
       resflax COMMAND --help
       resflax --version

commands:
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType
from typing import NoReturn

from resflax.errors import UsageError
from resflax.terminal.command import run

COMMANDS = (
    "train",
    "sweep",
    "evaluate",
    "report",
    "summary",
    "predict",
    "prepare-data",
    "import-weights",
    "export-weights",
    "deepen",
    "track",
    "benchmark",
    "benchmark-data",
)


def main() -> NoReturn:
    """Runs the command that this process's arguments name, and exits with its code."""
    run(call_command)


def call_command(arguments: Sequence[str]) -> None:
    """Calls the command that the first argument names, or prints the list of commands.

    Raises `UsageError` if there is no such command.
    """
    name, *others = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(list_of_commands())
    elif name == "--version":
        print(f"resflax {metadata.version('resflax')}")
    elif name in COMMANDS:
        sys.argv = [f"resflax {name}", *others]  # the program as usage texts name it
        _module(name).main(others)
    else:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        raise UsageError(f"resflax has no command {name!r}; {advice}")


def list_of_commands() -> str:
    """The usage of `resflax`, and every command with the first line of its documentation."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {_first_line(_module(name))}" for name in COMMANDS]
    return "\n".join([(__doc__ or "").strip(), *lines])


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"resflax.commands.{name.replace('-', '_')}")


def _first_line(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().split("\n")[0]


if __name__ == "__main__":
    main()
