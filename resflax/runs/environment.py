"""The environment of a run for environment.json: versions, devices, source and command."""

import os
import platform
import shlex
import socket
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from resflax.kernels import library
from resflax.runs.git import git_changes, git_state

_HERE = Path(__file__)


def describe_environment() -> dict[str, Any]:
    """Describes this process, its machine and its software as plain JSON values.

    They are enough to repeat the run elsewhere.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "folder": _working_folder(),
        "command": shlex.join([sys.executable, *sys.orig_argv[1:]]),
        "flags": {name: os.environ[name] for name in sorted(os.environ) if _is_flag(name)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "kernels": library.state().to_json(),
        "git": git_state(_HERE),
        "packages": dict(sorted((d.name, d.version) for d in metadata.distributions())),
    }


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _is_flag(name: str) -> bool:
    """Whether an environment variable may change what is computed."""
    beginnings = ("JAX_", "XLA_", "TF_", "CUDA_VISIBLE", "NVIDIA_", "OMP_", "TFDS_", "RESFLAX_")
    return name.startswith(beginnings)


def source_changes() -> str:
    """The patch from the commit of this source to its working tree; empty if they are equal."""
    return git_changes(_HERE)
