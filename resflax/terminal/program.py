"""The name of the program, and commands as the user calls them.

Texts name a command `resflax NAME`. For a user who called scripts/train.py, the other commands are
the scripts in the same folder, so texts that are shown to this user name those.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

_COMMAND = re.compile(r"\bresflax ([a-z]+(?:-[a-z]+)*)")


def program() -> str:
    """The name of the program that was called: `resflax train`, or `train.py`."""
    return Path(sys.argv[0]).name


def usage_as_called(usage: str) -> str:
    """A usage text without blank lines around it; it names scripts `train.py` if one was called."""
    return _with_scripts(usage.strip(), lambda script: script.name)


def as_called(message: str) -> str:
    """A message; it names scripts `python scripts/train.py` if one was called."""
    return _with_scripts(message, lambda script: f"python {script}")


def _with_scripts(text: str, name: Callable[[Path], str]) -> str:
    """The text with the names of scripts in place of commands, if the program is a script."""
    called = Path(sys.argv[0])
    if called.suffix != ".py":
        return text

    def replacement(command: re.Match[str]) -> str:
        script = called.with_name(f"{command[1].replace('-', '_')}.py")
        return name(script) if script.is_file() else command[0]

    return _COMMAND.sub(replacement, text)
