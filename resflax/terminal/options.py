"""Command-line options: experiments and networks whose fields can be overridden.

Nothing here imports JAX, so that help and mistakes are answered at once.
"""

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from resflax.declarations.models import Published
from resflax.declarations.own import FIELDS_WITH_CLASSES, NAMES_CLASS
from resflax.errors import UsageError
from resflax.experiment import Experiment, with_fields
from resflax.models import zoo
from resflax.paths import user_path
from resflax.terminal.experiment_files import load_experiment
from resflax.terminal.own_options import (
    REGISTRY,
    own_fields,
    take_own_fields,
    texts_of_own_fields,
    with_own_fields,
)
from resflax.terminal.program import program, usage_as_called

T = TypeVar("T")
U = TypeVar("U")

ExperimentFile = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")]
"""The first argument of commands that take an experiment."""

Overridden = Annotated[Experiment, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
"""An experiment whose fields are options: `--model.depth 56`."""

NetworkName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
"""The first argument of commands that also take the name of a published network."""

OverriddenModel = Annotated[Published, tyro.conf.FlagConversionOff]
"""A network whose fields are options: `--model.depth 56`."""

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value: it is True if `--name` is given, and otherwise False."""


def parse(options: type[T], arguments: Sequence[str], default: T | None = None) -> T:
    """Reads the fields of a dataclass from `--dashed.names` (or underscores).

    Raises `UsageError` with tyro's message as one line; prints help and exits on `--help`.
    """
    printed = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(
                options,
                args=list(arguments),
                prog=program(),
                config=(tyro.conf.AvoidSubcommands,),
                registry=REGISTRY,
                **given,
            )
    except SystemExit as end:
        if not end.code:
            raise
    raise UsageError(_message_in_box(printed.getvalue()))


def _message_in_box(box: str) -> str:
    """The message in a box that tyro has drawn: the box's first part, and any option it suggests.

    tyro draws every error as a box on stderr and exits; it has no way to return the error itself.
    Where stdout is not UTF-8, the box has lines of dashes, and its title is above the first.
    """
    rows = [row.strip("│ ") for row in box.splitlines() if not row.startswith(("╭", "╰"))]
    if "╭" not in box:
        rows = rows[next((i for i, row in enumerate(rows) if _is_line(row)), -1) + 1 :]
    parts = " ".join("\n" if _is_line(row) else row for row in rows).split("\n")
    suggestions = [part for part in parts[1:] if part.strip().startswith("Perhaps you meant")]
    options = [match.group() for part in suggestions if (match := re.search(r"--[\w.-]+", part))]
    advice = f"; did you mean {options[0]}?" if options else "; see --help"
    message = " ".join(parts[0].split()).rstrip(".")
    # For a field of several types, tyro lists the error of each.
    message = re.sub(
        r"no type matching (.*) could be instantiated from \['(.*?)'\].*",
        r"'\2' is not \1",
        message,
    )
    return re.sub(r"^Error parsing [\w.]+: (?=[A-Z]\w+\.\w+ is )", "", message) + advice


def _is_line(row: str) -> bool:
    """Whether a row is a line that is drawn between the parts of a box."""
    return len(row) > 2 and set(row) in ({"─"}, {"-"})


def parse_with_experiment(
    options: type[T],
    arguments: Sequence[str],
    usage: str,
    read_run: Callable[[Path], Experiment] | None = None,
) -> T:
    """Reads `EXPERIMENT [--option ...]`: the experiment of a file, with fields overridden.

    Args:
      options: a dataclass with the fields `file` (positional) and `experiment`.
      arguments: the command line.
      usage: the text that `--help` prints when no experiment file is named.
      read_run: reads the experiment of a run folder, for commands where `--from RUN` may name a
        run folder in place of a file.
    """
    path, origin = _experiment_file(arguments), value_of("--from", arguments)
    if origin is not None and read_run is not None:
        if path is not None:
            raise UsageError(f"name an experiment file or --from RUN, not both ({path}, {origin})")
        return _override(options, arguments, origin, read_run(user_path(origin)))
    if path is None:
        if {"-h", "--help"} & set(arguments):
            print(usage_as_called(usage))
            sys.exit(0)
        other = _first_word(arguments)
        problem = "none was named" if other is None else f"{other!r} is not one"
        raise UsageError(f"an experiment file (ending in .py) must come first, and {problem}")
    trust_code = "--trust-code" in arguments
    return _override(
        options, arguments, path, load_experiment(user_path(path), trust_code=trust_code)
    )


def parse_with_run(
    options: type[T],
    arguments: Sequence[str],
    usage: str,
    read_run: Callable[[Path], Experiment],
) -> T:
    """Reads `RUN [--option ...]`: the experiment of a run folder, with fields overridden.

    Args:
      options: a dataclass with the fields `file` (positional, the run folder) and `experiment`.
      arguments: the command line.
      usage: the text that `--help` prints when no run folder is named.
      read_run: reads the experiment of a run folder.
    """
    if arguments and not arguments[0].startswith("-"):
        return _override(options, arguments, arguments[0], read_run(user_path(arguments[0])))
    if {"-h", "--help"} & set(arguments):
        print(usage_as_called(usage))
        sys.exit(0)
    raise UsageError("a run folder must come first, and none was named")


def _override(options: type[T], arguments: Sequence[str], file: str, experiment: Experiment) -> T:
    ready = with_given_length(with_given_classes(experiment, arguments), arguments)
    fields = own_fields(ready)
    with_fields_of_own: Any = with_own_fields(options, fields, texts_of_own_fields(ready))
    default = with_fields_of_own(file=file, experiment=ready)
    parsed: Any = parse(with_fields_of_own, arguments, default)
    final: T = dataclasses.replace(
        parsed, experiment=take_own_fields(parsed.experiment, parsed, fields)
    )
    return final


def parse_with_network(
    of_experiment: type[T], of_name: type[U], arguments: Sequence[str], usage: str
) -> T | U:
    """Reads `EXPERIMENT|NAME [--option ...]`: an experiment, or a published network's name.

    Args:
      of_experiment: the options for an experiment, as for `parse_with_experiment`.
      of_name: the options for a network's name, a dataclass with the fields `name` (positional) and
        `model`.
      arguments: the command line.
      usage: the text that `--help` prints when neither is named.
    """
    name = next((a for a in arguments if a in zoo.NAMES), _first_word(arguments))
    if name is None or _experiment_file(arguments) is not None:
        return parse_with_experiment(of_experiment, arguments, usage)
    # An experiment lets a network have classes of the user's own, and options for their fields.
    around = Experiment(name="network", model=zoo.named(name), batch_size=1, steps=1)
    ready = with_given_classes(around, arguments)
    fields = own_fields(ready)
    options: Any = with_own_fields(of_name, fields, texts_of_own_fields(ready))
    parsed: Any = parse(options, arguments, options(name=name, model=ready.model))
    model = take_own_fields(dataclasses.replace(ready, model=parsed.model), parsed, fields).model
    final: U = dataclasses.replace(parsed, model=model)
    return final


def _experiment_file(arguments: Sequence[str]) -> str | None:
    for ending in (".py", ".json"):
        for argument in arguments:
            if argument.endswith(ending) and not argument.startswith("-"):
                return argument
    return None


def value_of(option: str, arguments: Sequence[str]) -> str | None:
    """Finds the value of one option before all are parsed; None if it is not given."""
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{option}="):
            return argument.removeprefix(f"{option}=")
        if argument == option and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def _first_word(arguments: Sequence[str]) -> str | None:
    return next((a for a in arguments if not a.startswith("-")), None)


def with_given_classes(experiment: Experiment, arguments: Sequence[str]) -> Experiment:
    """The experiment with the own classes that options name, so that their fields are known."""
    for name in FIELDS_WITH_CLASSES:
        given = value_of(f"--{name}", arguments)
        if given is not None and NAMES_CLASS.search(given):
            experiment = with_fields(experiment, {name: given})
    return experiment


def with_given_length(experiment: Experiment, arguments: Sequence[str]) -> Experiment:
    """The experiment, prepared so that `--steps` can replace its `epochs`, or vice versa."""
    given = {a.split("=")[0] for a in arguments}
    if "--epochs" in given and "--steps" not in given and experiment.steps is not None:
        return dataclasses.replace(experiment, steps=None, epochs=1.0)
    if "--steps" in given and "--epochs" not in given and experiment.epochs is not None:
        return dataclasses.replace(experiment, steps=1, epochs=None)
    return experiment


def refuse_varied(varied: Iterable[str], arguments: Sequence[str]) -> None:
    """Raises `UsageError` if an option sets a field that a sweep varies."""
    given = {a.split("=")[0].lstrip("-").replace("-", "_") for a in arguments if a[:2] == "--"}
    for name in sorted(given & set(varied)):
        raise UsageError(f"--{name} is given, but the sweep varies {name}; leave the option out")
