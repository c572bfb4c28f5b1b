"""Eight devices on the CPU, no file of the user's, and scripts run as a user runs them."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Before anything imports JAX or TFDS.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="resflax-tests-")
os.environ["TFDS_DATA_DIR"] = os.path.join(os.environ["XDG_CACHE_HOME"], "none-prepared")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Runs `scripts/NAME.py ARGUMENTS` in a process of its own, in an empty folder, on one device.

    Prepared digits are shared by all tests of a session.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "200"}
    del environment["XLA_FLAGS"]

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
