"""Eight devices on the CPU, no file of the user's, and scripts run as a user runs them."""

import atexit
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_command import ForkedCommand
from whole_runs import EXPERIMENT, run

ROOT = Path(__file__).parents[1]

# Before anything imports JAX or TFDS.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
# Shared by the processes that run tests, which compile much the same.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="resflax-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
os.environ["TFDS_DATA_DIR"] = os.path.join(os.environ["XDG_CACHE_HOME"], "none-prepared")

Script = Callable[..., subprocess.CompletedProcess[str]]


MAPS = Path("/proc/self/maps")
"""The memory maps of this process, one on each line; Linux has the file."""


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps() -> Iterator[None]:
    """Forgets compiled programs before a process has too many of them.

    Each has some memory maps, of which Linux allows a process 65,530. One more is a crash.
    """
    yield
    jax = sys.modules.get("jax")
    if jax is not None and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Runs `scripts/NAME.py ARGUMENTS` in a process of its own, in an empty folder, on one device.

    Prepared digits are shared by all tests of a session.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {
        "PYTHONPATH": path,
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiles sooner
        "COLUMNS": "200",
    }

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        called = ROOT / "scripts" / f"{name}.py"
        command = ForkedCommand(called, [*map(str, arguments)], environment, tmp_path)
        out, err = command.communicate(timeout=300)
        return subprocess.CompletedProcess(name, command.returncode or 0, out, err)

    return run


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment file of 40 steps, with marks of all kinds in between."""
    path = tmp_path_factory.mktemp("experiment") / "tiny.py"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture(scope="session")
def undisturbed(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of that experiment; not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run(experiment, "--run-dir", folder)
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data_dir of a streamed set of 23 training and 9 test pictures; not to be changed."""
    from streamed import small_set  # imports JAX

    return small_set(tmp_path_factory.mktemp("streamed"))


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 23 and 9 pictures of which two and one are damaged; not to be changed."""
    from streamed import damaged_folder

    return damaged_folder(tmp_path_factory.mktemp("damaged"))


@pytest.fixture
def tiny(experiment: Path) -> Any:
    """That experiment itself."""
    from resflax.terminal.experiment_files import load_experiment

    return load_experiment(experiment)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains in this process on so many devices, and returns what was printed."""
    from runs_in_process import trainer  # imports JAX

    return trainer(monkeypatch)


@pytest.fixture(scope="session")
def undisturbed_here(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run on a device of this process: sums depend on its number of threads."""
    from runs_in_process import trainer  # imports JAX

    from resflax.terminal.experiment_files import load_experiment

    folder = tmp_path_factory.mktemp("undisturbed_here") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        trainer(monkeypatch)(load_experiment(experiment), folder)
    return folder
