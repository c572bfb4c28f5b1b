"""Whole runs by `scripts/train.py` in processes of their own, for tests that disturb them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from forked_command import ForkedCommand, hangups_reach_children

ROOT = Path(__file__).parents[1]

EXPERIMENT = """
from resflax import *

experiment = Experiment(
    name="tiny",
    model=ResNet(8),
    data=Digits(validation=100),
    batch_size=48,
    steps=40,
    schedule=Cosine(warmup_steps=5),
    log_every=7,
    evaluate_every=20,
    checkpoint_every=9,
)
"""

_PATCHED = """
import sys, runpy
sys.path.insert(0, {root!r})
{patch}
sys.argv = [{script!r}, *sys.argv[1:]]
runpy.run_path({script!r}, run_name="__main__")
"""


def start(
    *arguments: object, script: str = "train", devices: int = 1, patch: str = ""
) -> ForkedCommand:
    """Starts a script, after running the statements `patch` in its process."""
    path = ROOT / "scripts" / f"{script}.py"
    return ForkedCommand(path, [*map(str, arguments)], _environment(devices), Path.cwd(), patch)


def start_interpreter(
    *arguments: object, script: str = "train", patch: str = "", **options: Any
) -> "subprocess.Popen[str]":
    """The same in a new interpreter, with options of `Popen`; output goes to pipes by default."""
    path = str(ROOT / "scripts" / f"{script}.py")
    code = _PATCHED.format(root=str(ROOT), patch=patch, script=path)
    with hangups_reach_children():
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=_environment(devices=1),
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )


def _environment(devices: int) -> dict[str, str]:
    return os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
        "--xla_backend_optimization_level=0",  # as in this process, for equality to the bit
    }


def run(*arguments: object, code: int = 0, **options: Any) -> tuple[str, str]:
    """Runs a script to its end, which must have this exit code; returns what it printed."""
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, (out, err)
    if code in (1, 2):
        assert err.startswith("error: "), err
        assert err.count("\n") == 1, err
    return out, err


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The measurements, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("seconds", "images_per_second")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def result(folder: Path) -> dict[str, Any]:
    """The result of a finished run."""
    ended = json.loads((folder / "result.json").read_text())
    assert isinstance(ended, dict)
    return ended


def assert_same(folder: Path, undisturbed: Path) -> None:
    """The same parameters to the bit, and the same log: no line lost, none twice."""
    assert result(folder)["params_sha256"] == result(undisturbed)["params_sha256"]
    assert metrics(folder) == metrics(undisturbed)


def files(folder: Path) -> dict[str, bytes]:
    """All files of a run except its lock."""
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if name != "run.lock"}
