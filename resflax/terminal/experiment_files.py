"""Experiment files: Python files that declare an experiment, and JSON files that hold one.

Nothing here imports JAX.
"""

import contextlib
import dataclasses
import difflib
import json
import re
import sys
import traceback
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import resflax
from resflax.declarations.own import beside
from resflax.declarations.sweeps import Grid, Search, Sweep
from resflax.errors import UsageError
from resflax.experiment import Experiment, from_json, with_code_from
from resflax.files import reason_of


def load_experiment(path: Path, *, trust_code: bool = False) -> Experiment:
    """Reads the `experiment` that a Python file declares, or the one in a run's experiment.json.

    Args:
      path: the file. A .json file may have copies of the code of a user's own classes beside it.
      trust_code: whether these copies may be run, if the files where they came from have changed.

    Raises `UsageError` if the file is missing, cannot be run, or declares no experiment.
    """
    declared = load_names(path, trust_code=trust_code).get("experiment")
    if not isinstance(declared, Experiment):
        problem = "there is none" if declared is None else f"it is of type {_type_name(declared)}"
        raise UsageError(f"{path} must declare `experiment = Experiment(...)`, and {problem}")
    return declared


def load_sweep(path: Path) -> Sweep:
    """Reads the `sweep` of an experiment file. Raises `UsageError` if it declares none."""
    declared = load_names(path).get("sweep")
    if not isinstance(declared, Grid | Search):
        problem = "there is none" if declared is None else f"it is of type {_type_name(declared)}"
        raise UsageError(f"{path} must declare `sweep = Grid(...)` or `Search(...)`, and {problem}")
    return declared


def _type_name(value: object) -> str:
    return type(value).__name__


def load_names(path: Path, *, trust_code: bool = False) -> dict[str, Any]:
    """The names that a Python file defines when it runs; for a .json file, only `experiment`.

    Raises `UsageError` with the line and the reason if the file cannot be read or run.
    """
    if not path.is_file():
        problem = "it is a folder" if path.is_dir() else "there is no such file"
        raise UsageError(f"{path} cannot be read: {problem}")
    if path.suffix == ".json":
        try:
            read = from_json(json.loads(path.read_text(encoding="utf-8")))
            return {"experiment": with_code_from(read, path.parent / "code", trust_code)}
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from None
    with _own_folder_importable(path), warnings.catch_warnings():
        # Newer Pythons warn of unknown escapes such as "\d", which would add lines to an error.
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            return _run(path)
        except SyntaxError as error:
            if error.filename is not None and Path(error.filename) == path:
                where = f"{path}, line {error.lineno}"
            else:
                where = str(path)
            raise UsageError(f"{where}: not valid Python: {error.msg}") from None
        except OSError as error:
            reason = reason_of(error) if error.filename == str(path) else error
            raise UsageError(f"{path} cannot be read: {reason}") from None
        except (Exception, SystemExit) as error:
            lines = [
                frame.lineno
                for frame in traceback.extract_tb(error.__traceback__)
                if frame.filename == str(path)
            ]
            where = f"{path}, line {lines[-1]}" if lines else str(path)
            kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
            raise UsageError(f"{where}: {kind}{_with_advice(error)}") from None


def _run(path: Path) -> dict[str, Any]:
    """Runs a Python file as a module, so that the classes that it defines know their file."""
    module = types.ModuleType(f"<{path}>")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    with beside(path.absolute().parent):
        exec(code, module.__dict__)
    return vars(module)


@contextlib.contextmanager
def _own_folder_importable(path: Path) -> Iterator[None]:
    """Lets an experiment file import files in its own folder, as a script can."""
    folder = str(path.parent.absolute())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _with_advice(error: BaseException) -> str:
    """The text of an error; if it is about a field that does not exist, with the right names."""
    made = re.match(r"(\w+)\.__init__\(\) missing .*'layers'", str(error))
    if made is not None:
        return f"give the class {made[1]} itself; its fields are set with Own({made[1]}, ...)"
    match = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    declaration = getattr(resflax, match[1], None) if match else None
    if match is None or not dataclasses.is_dataclass(declaration):
        return str(error)
    names = [field.name for field in dataclasses.fields(declaration)]
    close = difflib.get_close_matches(match[2], names, n=1)
    advice = f"did you mean {close[0]}?" if close else f"it has {', '.join(names)}"
    return f"{match[0]}; {advice}"  # without the advice that Python 3.13 appends
