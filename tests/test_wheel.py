"""The wheel: installed without the checkout, it has every command, and its sweeps have workers."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from resflax.commands.__main__ import COMMANDS

EXPERIMENT = """
from resflax import *

experiment = Experiment(
    name="tiny", model=ResNet(8), data=Digits(), batch_size=32, steps=3, schedule=Cosine()
)
sweep = Grid({"model.shortcut": ["none", "zero_pad"]})
"""

LIBRARY = Path("resflax", "kernels", "libresflax_kernels.so")

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def build_wheel(folder: Path, **environment: str) -> Path:
    """Builds the wheel from a copy of the source, so that no earlier build is in it."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("*.pyc", LIBRARY.name)
    shutil.copytree(ROOT / "resflax", source / "resflax", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-w", folder)
    pip("wheel", *options, source, **environment)
    (path,) = folder.glob("*.whl")
    return path


def without_checkout() -> dict[str, str]:
    """The environment variables, without a path that may lead to the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def pip(*arguments: object, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    variables = without_checkout() | environment
    done = subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def packed_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel.

    Its dependencies are those of the running environment, whose folders of packages are added to
    the path. Files in them that would add further folders, as an editable install's, are not read.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    programs = folder / "bin"
    pip("--python", programs / "python", "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    running = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "running.pth").write_text("\n".join(sorted(running)) + "\n")
    return programs


@pytest.fixture
def program(installed: Path, tmp_path: Path) -> Program:
    """Runs a program of that environment in a folder whose modules must not be imported."""
    for name in ("resflax", "random", "jax"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError(f'{__file__} is imported')\n")
    environment = without_checkout() | {
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles sooner
        "COLUMNS": "200",
    }

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(installed / name), *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path):
    assert packed_files(wheel) - {LIBRARY.as_posix()} == source_files()


def source_files() -> set[str]:
    """The files of the package, except those from which the kernels are built."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "resflax").rglob("*")
        if path.is_file()
        and path.suffix != ".pyc"
        and path.name != LIBRARY.name
        and path.parent != ROOT / "resflax" / "kernels" / "source"
    }


def test_the_wheel_has_the_kernels_if_there_is_a_compiler(wheel: Path):
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    assert (LIBRARY.as_posix() in packed_files(wheel)) == (compiler is not None)
    assert wheel.name.startswith("resflax-0.1.0-py3-none-")
    assert wheel.name.endswith("-any.whl") == (compiler is None)


@pytest.mark.parametrize("lacking", ["compiler", "working compiler", "headers"])
def test_the_wheel_is_also_built_without(lacking: str, tmp_path: Path):
    environment = {"CXX": "false"}
    if lacking == "compiler":
        environment = {"PATH": str(tmp_path), "CXX": ""}
    elif lacking == "headers":
        (tmp_path / "jaxlib").mkdir()
        (tmp_path / "jaxlib" / "__init__.py").touch()
        environment = {"PYTHONPATH": str(tmp_path)}
    path = build_wheel(tmp_path, **environment)
    assert path.name == "resflax-0.1.0-py3-none-any.whl"
    assert packed_files(path) == source_files()


def test_the_package_comes_from_the_wheel(program: Program, installed: Path):
    code = "import resflax.commands.train; print(resflax.__file__)"
    done = program("python", "-P", "-c", code)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed.parent)


def test_the_program_lists_its_commands(program: Program):
    done = program("resflax", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = done.stdout.split("commands:\n")[1].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    assert all(len(line.split()) > 3 for line in listed)
    assert program("resflax").stdout == done.stdout
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert program("resflax", "--version").stdout == f"resflax {version}\n"


def test_a_mistyped_command_is_answered_with_a_close_one(program: Program):
    done = program("resflax", "evalute")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: resflax has no command 'evalute'; did you mean evaluate?\n"
    done = program("resflax", "--zzz")
    assert done.returncode == 2
    assert done.stderr.startswith("error: resflax has no command '--zzz'; there are train, sweep, ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_names_it(program: Program, command: str):
    done = program("resflax", command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: resflax {command} " in done.stdout


def test_an_experiment_is_trained_evaluated_swept_and_reported(program: Program, tmp_path: Path):
    file = tmp_path / "declared" / "tiny.py"
    file.parent.mkdir()
    file.write_text(EXPERIMENT)

    trained = program("resflax", "train", file)
    assert trained.returncode == 0, trained.stderr
    (run,) = (tmp_path / "runs").iterdir()
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("finished", 3)
    environment = json.loads((run / "environment.json").read_text())
    assert environment["command"].endswith(f"bin/resflax train {file}")
    assert environment["git"] is None

    evaluated = program("resflax", "evaluate", run, "--json")
    assert (evaluated.returncode, evaluated.stderr) == (0, "")
    assert json.loads(evaluated.stdout)["top1_error"] == result["test_error"]

    swept = program("resflax", "sweep", file, "--jobs", 2)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert "2 trials: 2 done; 2 of them were run now" in swept.stdout
    (sweep,) = (tmp_path / "sweeps").iterdir()
    assert swept.stdout.splitlines()[-1] == f"resflax report sweeps/{sweep.name}"

    reported = program(*swept.stdout.splitlines()[-1].split())
    assert (reported.returncode, reported.stderr) == (0, "")
    page = (tmp_path / "report.html").read_text()
    assert "zero_pad" in page
    assert reported.stdout.splitlines()[0] == "report.html"


def test_a_published_network_is_summarized(program: Program):
    done = program("resflax", "summary", "resnet20", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["params"] == 269_722  # He et al. 2015, Table 6: 0.27M
