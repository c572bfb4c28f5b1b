"""Imports: which modules do without JAX, which change nothing, and in which direction they run."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT

from resflax.commands.__main__ import COMMANDS

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "resflax").rglob("*.py"))
}
"""Every module and package of resflax by its name."""


def in_fresh_python(code: str, *arguments: str) -> str:
    """Runs a program in a process of its own, which must succeed, and returns what it prints."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


# --- Without JAX

WITHOUT_JAX = [
    "resflax",
    "resflax.api",
    "resflax.branches",
    "resflax.cache",
    "resflax.commands.*",
    "resflax.data.image_folder",
    "resflax.declarations.*",
    "resflax.devices.compiled_cache",
    "resflax.drawing",
    "resflax.drawing.axes",
    "resflax.drawing.networks.*",
    "resflax.drawing.picture",
    "resflax.drawing.style",
    "resflax.errors",
    "resflax.evaluation.other_data",
    "resflax.evaluation.views",
    "resflax.experiment",
    "resflax.files",
    "resflax.kernels",
    "resflax.kernels.library",
    "resflax.locks",
    "resflax.models",
    "resflax.models.graph",
    "resflax.models.operations",
    "resflax.models.zoo",
    "resflax.orders",
    "resflax.parts.*",
    "resflax.paths",
    "resflax.report",
    "resflax.report.against",
    "resflax.report.build",
    "resflax.report.cells",
    "resflax.report.collect",
    "resflax.report.comparisons",
    "resflax.report.curves",
    "resflax.report.dataframe",
    "resflax.report.families",
    "resflax.report.finding",
    "resflax.report.forest",
    "resflax.report.groups",
    "resflax.report.labels",
    "resflax.report.latex",
    "resflax.report.marks",
    "resflax.report.measures",
    "resflax.report.page",
    "resflax.report.page_html",
    "resflax.report.page_markdown",
    "resflax.report.pairs",
    "resflax.report.paper_marks",
    "resflax.report.papers",
    "resflax.report.phrases",
    "resflax.report.run_cache",
    "resflax.report.search_pictures",
    "resflax.report.search_table",
    "resflax.report.search_trials",
    "resflax.report.sections",
    "resflax.report.sentences",
    "resflax.report.series",
    "resflax.report.sizes",
    "resflax.report.statistics",
    "resflax.report.sweep_records",
    "resflax.report.tables",
    "resflax.report.texts",
    "resflax.report.trackers",
    "resflax.report.variant_dots",
    "resflax.report.watching",
    "resflax.runs.git",
    "resflax.runs.initial_weights",
    "resflax.runs.metrics",
    "resflax.runs.origins",
    "resflax.runs.run_folder",
    "resflax.runs.versions",
    "resflax.shortcuts",
    "resflax.sweep.launcher",
    "resflax.sweep.search",
    "resflax.sweep.slurm",
    "resflax.terminal.*",
    "resflax.text",
]
"""Modules that can be imported without JAX; with `.*`, a package and all of its modules."""

PROMISE = re.compile(r"(not import|Nothing here imports|None of them imports) JAX")
ALL_BUT_SOME = re.compile(r"Only (`\w+`(?: and `\w+`)*) imports? JAX")


def matching(pattern: str) -> list[str]:
    """The modules that an entry of `WITHOUT_JAX` stands for."""
    package = pattern.removesuffix(".*")
    names = [name for name in FILES if name == package]
    if pattern != package:
        names += [name for name in FILES if name.startswith(f"{package}.")]
    assert names, f"no module is named {pattern}"
    return names


def test_modules_that_promise_it_do_without_jax():
    names = [name for pattern in WITHOUT_JAX for name in matching(pattern)]
    code = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "jax" in sys.modules:
        print(name)
        break
"""
    assert in_fresh_python(code, *names) == "", "this module imports JAX"


def test_every_promise_in_a_docstring_is_tested():
    promised = set()
    for name, path in FILES.items():
        docstring = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        if PROMISE.search(docstring):
            promised |= {name}
        if (match := ALL_BUT_SOME.search(docstring)) is not None:
            others = {f"{name}.{other}" for other in re.findall(r"\w+", match[1])}
            promised |= set(matching(f"{name}.*")) - others
    assert promised <= {name for pattern in WITHOUT_JAX for name in matching(pattern)}


@pytest.mark.parametrize("options", [[], ["--help"]], ids=["imported", "help"])
def test_scripts_answer_without_jax(options: list[str]):
    code = """
import contextlib, io, runpy, sys
paths, options = sys.argv[1].split(":"), sys.argv[2:]
for path in paths:
    sys.argv = [path, *options]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(path, run_name="__main__" if options else "imported")
        except SystemExit as end:
            assert end.code in (None, 0), (path, end.code)
    if options and not printed.getvalue().strip():
        print(path, "prints no help")
    if "jax" in sys.modules:
        print(path, "imports JAX")
        break
"""
    assert in_fresh_python(code, ":".join(map(str, SCRIPTS)), *options) == ""


def test_every_command_has_a_script_that_only_calls_it():
    modules = {name.replace("-", "_") for name in COMMANDS}
    assert {path.stem for path in SCRIPTS} == modules
    packaged = {path.stem for path in (ROOT / "resflax" / "commands").glob("[!_]*.py")}
    assert packaged == modules
    for path in SCRIPTS:
        _, *statements = ast.parse(path.read_text()).body  # the first is the docstring
        assert [ast.unparse(statement) for statement in statements] == [
            f"from resflax.commands.{path.stem} import main",
            "from resflax.terminal.command import run",
            "if __name__ == '__main__':\n    run(main)",
        ]


# --- Without effects on the process

OPTIONAL = ("torch", "torchvision", "tensorflow", "wandb", "optuna", "submitit", "tensorboardX")

STATE = """
import atexit, importlib, json, logging, os, signal, sys, threading, warnings

OPTIONAL, libraries, modules = map(json.loads, sys.argv[1:])

def load(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name.split(".")[0]
        if missing not in OPTIONAL and error.name != name:
            raise

def state():
    import cv2, jax, matplotlib, numpy
    from PIL import Image
    loggers = [logging.root, *map(logging.getLogger, before_loggers)]
    return {
        "logging.disable": logging.root.manager.disable,
        "levels of loggers": [logger.level for logger in loggers],
        "handlers of loggers": [list(logger.handlers) for logger in loggers],
        "PIL.Image.MAX_IMAGE_PIXELS": Image.MAX_IMAGE_PIXELS,
        "PIL.ImageFile.LOAD_TRUNCATED_IMAGES": sys.modules["PIL.ImageFile"].LOAD_TRUNCATED_IMAGES,
        "cv2.getNumThreads()": cv2.getNumThreads(),
        "warnings.filters": list(warnings.filters),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "os.environ": dict(os.environ),
        "working folder": os.getcwd(),
        "sys.path": list(sys.path),
        "sys.excepthook": sys.excepthook,
        "functions at exit": atexit._ncallbacks(),
        "threads": [thread.name for thread in threading.enumerate()],
        "numpy's error handling": numpy.geterr(),
        "jax.config": dict(jax.config.values),
        "matplotlib.rcParams": dict(matplotlib.rcParams.copy()),
    }

for name in libraries:
    load(name)
before_loggers = list(logging.root.manager.loggerDict)
before = state()
for name in modules:
    load(name)
    after = state()
    for thing, value in after.items():
        if value != before[thing]:
            print(f"{name} changes {thing} from {before[thing]} to {value}")
    before = after
"""


def test_importing_changes_nothing_in_the_process():
    # The libraries are imported first, because theirs are not our changes.
    libraries = {"cv2", "jax", "matplotlib", "numpy", "PIL.Image", "PIL.ImageFile"}
    for path in FILES.values():
        for statement in imports_of(path):
            library = statement.module
            if statement.runs_at_import and not library.startswith("resflax"):
                libraries |= {library, *(f"{library}.{name}" for name in statement.names)}
    # Lower rooms come first, so that the module that makes a change is named and not one above it.
    modules = sorted(FILES, key=lambda name: -LEVELS[room_of(name)])
    arguments = [OPTIONAL, sorted(libraries), modules]
    assert in_fresh_python(STATE, *map(json.dumps, arguments)) == ""


# --- Downwards only

ROOMS = """
    scripts
    commands api
    report sweep benchmark diagnostics evaluation
    runs
    drawing training
    feeding
    devices
    terminal
    data weights models
    resflax experiment declarations
    shortcuts branches orders
    parts kernels
    files locks paths cache text errors
"""
"""Rooms from the top to the bottom: folders, single files, and the package's own `resflax`."""

LEVELS = {
    room: level for level, rooms in enumerate(ROOMS.strip().splitlines()) for room in rooms.split()
}

SIDEWAYS = {
    ("report", "diagnostics"),
    ("weights", "models"),
    ("resflax", "declarations"),
    ("resflax", "experiment"),
    ("experiment", "declarations"),
    ("locks", "errors"),
    ("locks", "files"),
    ("files", "errors"),
    ("files", "text"),
    ("cache", "errors"),
    ("cache", "files"),
    ("cache", "paths"),
    ("paths", "errors"),
    ("paths", "files"),
    ("paths", "text"),
}
"""The imports between rooms of one line."""

FOR_TYPES = {("shortcuts", "models"), ("branches", "models")}
"""The imports upwards that only type checkers follow, under `if TYPE_CHECKING`."""

FOR_USERS = {("resflax", "api")}
"""The imports upwards that let a user write `resflax.train`. What is imported in this way imports
the rooms below it only when its functions are called."""


class Import(NamedTuple):
    """An import statement."""

    module: str
    names: tuple[str, ...]
    """What `from module import ...` takes out of it."""
    line: int
    for_types: bool
    """Whether it stands under `if TYPE_CHECKING`."""
    runs_at_import: bool
    """Whether it runs when its module is imported, and not when a function is called."""


def imports_of(path: Path) -> Iterator[Import]:
    """Every import statement of a file."""

    def visit(node: ast.AST, for_types: bool, in_function: bool) -> Iterator[Import]:
        runs = not for_types and not in_function
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), node.lineno, for_types, runs)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: a relative import"
            names = tuple(alias.name for alias in node.names)
            yield Import(node.module or "", names, node.lineno, for_types, runs)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                yield from visit(statement, True, in_function)
            for statement in node.orelse:
                yield from visit(statement, for_types, in_function)
        else:
            in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, for_types, in_function)

    return visit(ast.parse(path.read_text()), False, False)


def room_of(module: str) -> str:
    """The room of a module: `runs` for resflax.runs.loop, `errors` for resflax.errors."""
    package, *parts = module.split(".")
    return parts[0] if package == "resflax" and parts else package


def rooms_entered(statement: Import) -> set[str]:
    """The rooms that an import statement reaches into; none for other libraries."""
    if statement.module.split(".")[0] != "resflax":
        return set()
    within = [f"{statement.module}.{name}" for name in statement.names]
    modules = [name if name in FILES else statement.module for name in within]
    return {room_of(module) for module in modules or [statement.module]}


def arrows() -> Iterator[tuple[tuple[str, str], Import, str]]:
    """Every import from one room into another, with its statement and where it stands."""
    files: dict[str, Any] = {f"scripts.{path.stem}": path for path in SCRIPTS}
    for name, path in (files | FILES).items():
        for statement in imports_of(path):
            for room in rooms_entered(statement) - {room_of(name)}:
                where = f"{path.relative_to(ROOT)}, line {statement.line}"
                yield (room_of(name), room), statement, where


def test_every_room_has_its_place():
    rooms = {room_of(name) for name in FILES} | {"scripts"}
    assert rooms == LEVELS.keys()


def test_imports_run_downwards():
    wrong = []
    for (above, below), statement, where in arrows():
        if statement.for_types and (above, below) in FOR_TYPES:
            continue
        if (above, below) in FOR_USERS:
            continue
        if LEVELS[above] == LEVELS[below] and (above, below) in SIDEWAYS:
            continue
        if LEVELS[above] >= LEVELS[below]:
            wrong.append(f"{where}: {above} imports {below} ({statement.module})")
    assert wrong == []


def test_what_users_call_imports_only_low_rooms_at_first():
    for (above, below), statement, where in arrows():
        if ("resflax", above) in FOR_USERS and statement.runs_at_import:
            assert LEVELS[below] >= LEVELS["resflax"], where


def test_every_exception_is_needed():
    used: set[tuple[str, str]] = set()
    used_for_types: set[tuple[str, str]] = set()
    for arrow, statement, _ in arrows():
        (used_for_types if statement.for_types else used).add(arrow)
    assert used >= SIDEWAYS | FOR_USERS
    assert used_for_types >= FOR_TYPES
