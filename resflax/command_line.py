"""What the command lines share: experiment files, overrides, one-line errors, exit codes.

Nothing here imports JAX, so that `--help` and mistakes are answered at once.
"""

import contextlib
import dataclasses
import difflib
import io
import json
import logging
import os
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

import resflax
from resflax.declarations.models import Model
from resflax.declarations.sweeps import Grid, Search, Sweep
from resflax.errors import Interrupted, TrainingError, UsageError
from resflax.experiment import Experiment, from_json
from resflax.models import zoo
from resflax.training.run_folder import RunFolder

T = TypeVar("T")
U = TypeVar("U")

ExperimentFile = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")]
"""The first argument of commands that take an experiment."""

Overridden = Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
"""An experiment whose fields are options: `--model.depth 56`."""

NetworkName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
"""The first argument where it is the name of a published network."""

OverriddenModel = Annotated[Model, tyro.conf.FlagConversionOff]
"""A network whose fields are options: `--model.depth 56`."""

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""`--name` is True, nothing is False."""


def run(command: Callable[[Sequence[str]], None]) -> NoReturn:
    """Runs a command with this process's arguments and exits with its code.

    0: done; 1: a failure while running; 2: bad usage, experiment or data; 130, 143 and 138: ended
    by Ctrl-C, SIGTERM or SIGUSR1. Failures print one line on stderr, `error: ...`.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _terminate)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax warns of what we asked it to do
    try:
        command(sys.argv[1:])
    except UsageError as error:
        _exit(2, f"error: {error}")
    except TrainingError as error:
        _exit(1, f"error: {error}")
    except Interrupted as interruption:
        _exit(128 + interruption.signal, str(interruption))
    except KeyboardInterrupt:
        _exit(128 + signal.SIGINT, "")
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _exit(128 + signal.SIGPIPE, "")
    _exit(0, "")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def _exit(code: int, text: str) -> NoReturn:
    # The code is decided. Python gives handlers up while it ends, and a signal then would kill.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if text:
        print(one_line(text), file=sys.stderr)
    sys.exit(code)


def one_line(text: str) -> str:
    """The text without line breaks, cut where only a value that was typed in can be so long."""
    text = " ".join(text.split())
    return text if len(text) <= 1500 else f"{text[:1000]} ... {text[-400:]}"


def parse(options: type[T], arguments: Sequence[str], default: T | None = None) -> T:
    """The fields of a dataclass from `--dashed.names` (or underscores).

    Raises `UsageError` with tyro's message as one line; prints help and exits on `--help`.
    """
    said = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                options,
                args=list(arguments),
                prog=Path(sys.argv[0]).name,
                config=(tyro.conf.AvoidSubcommands,),
                **given,
            )
    except SystemExit as end:
        if not end.code:
            raise
    raise UsageError(_one_line(said.getvalue()))


def _one_line(box: str) -> str:
    """The message in one of tyro's boxes: its first part, and the option it suggests."""
    rows = [row.strip("│ ") for row in box.splitlines() if not row.startswith(("╭", "╰"))]
    parts = " ".join("\n" if row.startswith("─") else row for row in rows).split("\n")
    suggestions = [part for part in parts[1:] if part.strip().startswith("Perhaps you meant")]
    hints = [found.group() for part in suggestions if (found := re.search(r"--[\w.-]+", part))]
    hint = f"; did you mean {hints[0]}?" if hints else "; see --help"
    message = " ".join(parts[0].split()).rstrip(".")
    return re.sub(r"^Error parsing [\w.]+: (?=[A-Z]\w+\.\w+ is )", "", message) + hint


def parse_with_experiment(options: type[T], arguments: Sequence[str], usage: str) -> T:
    """Reads `EXPERIMENT [--option ...]`: the named file, its experiment's fields overridden.

    Or `--from RUN [--option ...]`, if the options have a field `from_run`: that run's experiment.

    Args:
      options: a dataclass with the fields `file` (positional) and `experiment`.
      arguments: the command line.
      usage: what `--help` prints when no experiment file is named.
    """
    path, origin = _experiment_file(arguments), _value("--from", arguments)
    if origin is not None and any(f.name == "from_run" for f in dataclasses.fields(options)):  # type: ignore[arg-type]
        if path is not None:
            raise UsageError(f"name an experiment file or --from RUN, not both ({path}, {origin})")
        experiment = RunFolder(Path(origin)).read_experiment()
        return _override(options, arguments, origin, experiment)
    if path is None:
        if {"-h", "--help"} & set(arguments):
            print(usage.strip())
            sys.exit(0)
        other = _first_word(arguments)
        found = "none was named" if other is None else f"{other!r} is not one"
        raise UsageError(f"an experiment file (ending in .py) must come first, and {found}")
    experiment = load_experiment(Path(path))
    return _override(options, arguments, path, experiment)


def _override(options: type[T], arguments: Sequence[str], file: str, experiment: Experiment) -> T:
    ready = with_given_length(experiment, arguments)
    return parse(options, arguments, options(file=file, experiment=ready))  # type: ignore[call-arg]


def parse_with_network(
    of_experiment: type[T], of_name: type[U], arguments: Sequence[str], usage: str
) -> T | U:
    """Reads `EXPERIMENT|NAME [--option ...]`: an experiment, or a published network's name.

    Args:
      of_experiment: the options with an experiment, as for `parse_with_experiment`.
      of_name: a dataclass with the fields `name` (positional) and `model`.
      arguments: the command line.
      usage: what `--help` prints when neither is named.
    """
    name = next((a for a in arguments if a in zoo.NAMES), _first_word(arguments))
    if name is None or _experiment_file(arguments) is not None:
        return parse_with_experiment(of_experiment, arguments, usage)
    return parse(of_name, arguments, of_name(name=name, model=zoo.named(name)))  # type: ignore[call-arg]


def _experiment_file(arguments: Sequence[str]) -> str | None:
    for kind in (".py", ".json"):
        for argument in arguments:
            if argument.endswith(kind) and not argument.startswith("-"):
                return argument
    return None


def _value(option: str, arguments: Sequence[str]) -> str | None:
    """What follows an option, or stands behind its `=`; None if it is not given."""
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
        if argument == option and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def _first_word(arguments: Sequence[str]) -> str | None:
    return next((a for a in arguments if not a.startswith("-")), None)


def with_given_length(experiment: Experiment, arguments: Sequence[str]) -> Experiment:
    """The experiment, ready for `--steps` to replace its `epochs` or the other way round."""
    given = {a.split("=")[0] for a in arguments}
    if "--epochs" in given and "--steps" not in given and experiment.steps is not None:
        return dataclasses.replace(experiment, steps=None, epochs=1.0)
    if "--steps" in given and "--epochs" not in given and experiment.epochs is not None:
        return dataclasses.replace(experiment, steps=1, epochs=None)
    return experiment


def load_experiment(path: Path) -> Experiment:
    """The `experiment` of an experiment file, or that of a run's experiment.json.

    Raises `UsageError` for a file that is missing, cannot run, or declares none.
    """
    found = load_file(path).get("experiment")
    if not isinstance(found, Experiment):
        what = "there is none" if found is None else f"it is of type {type(found).__name__}"
        raise UsageError(f"{path} must declare `experiment = Experiment(...)`, and {what}")
    return found


def load_sweep(path: Path) -> Sweep:
    """The `sweep` of an experiment file. Raises `UsageError` if it declares none."""
    found = load_file(path).get("sweep")
    if not isinstance(found, Grid | Search):
        what = "there is none" if found is None else f"it is of type {type(found).__name__}"
        raise UsageError(f"{path} must declare `sweep = Grid(...)` or `Search(...)`, and {what}")
    return found


def refuse_varied(varied: Iterable[str], arguments: Sequence[str]) -> None:
    """Raises `UsageError` if an option sets what a sweep varies."""
    given = {a.split("=")[0].lstrip("-").replace("-", "_") for a in arguments if a[:2] == "--"}
    for name in sorted(given & set(varied)):
        raise UsageError(f"--{name} is given, but the sweep varies {name}; leave the option out")


def load_file(path: Path) -> dict[str, Any]:
    """The names that a Python file defines, after running it; of a .json, its `experiment`.

    Raises `UsageError` that names the line and the reason, if it cannot be read or run.
    """
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise UsageError(f"{path} cannot be read: {found}")
    if path.suffix == ".json":
        try:
            return {"experiment": from_json(json.loads(path.read_text(encoding="utf-8")))}
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from None
    with _own_folder_importable(path):
        try:
            return runpy.run_path(str(path))
        except SyntaxError as error:
            if error.filename is not None and Path(error.filename) == path:
                where = f"{path}, line {error.lineno}"
            else:
                where = str(path)
            raise UsageError(f"{where}: not valid Python: {error.msg}") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error}") from None
        except (Exception, SystemExit) as error:
            lines = [
                f.lineno
                for f in traceback.extract_tb(error.__traceback__)
                if f.filename == str(path)
            ]
            where = f"{path}, line {lines[-1]}" if lines else str(path)
            kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
            raise UsageError(f"{where}: {kind}{_advised(error)}") from None


@contextlib.contextmanager
def _own_folder_importable(path: Path) -> Iterator[None]:
    """Lets an experiment import its neighbours, as a script may."""
    folder = str(path.parent.absolute())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _advised(error: BaseException) -> str:
    """What an error says, and what would be right for a field that a declaration does not have."""
    found = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    declaration = getattr(resflax, found[1], None) if found else None
    if found is None or not dataclasses.is_dataclass(declaration):
        return str(error)
    names = [field.name for field in dataclasses.fields(declaration)]
    close = difflib.get_close_matches(found[2], names, n=1)
    advice = f"did you mean {close[0]}?" if close else f"it has {', '.join(names)}"
    return f"{found[0]}; {advice}"  # without the advice that Python 3.13 appends
