"""Where a run took place: versions, devices, source and command, for environment.json."""

import os
import platform
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax


def describe() -> dict[str, Any]:
    """What this process runs on, as plain JSON values: enough to repeat the run elsewhere."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "folder": os.getcwd(),
        "command": shlex.join([sys.executable, *sys.argv]),
        "flags": {name: os.environ[name] for name in sorted(os.environ) if _is_flag(name)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.local_devices()],
        "git": git_state(Path(__file__).parent),
        "packages": dict(sorted((d.name, d.version) for d in metadata.distributions())),
    }


def _is_flag(name: str) -> bool:
    """Whether an environment variable changes what is computed."""
    return name.startswith(("JAX_", "XLA_", "TF_", "CUDA_VISIBLE", "NVIDIA_", "OMP_", "TFDS_"))


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, and whether the tree was clean; None where the source is not in a git checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain")
    if commit is None or status is None:
        return None
    return {"commit": commit, "clean": not status}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
