"""The environment of a run for environment.json: versions, devices, source and command."""

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
        "git": git_state(Path(__file__)),
        "packages": dict(sorted((d.name, d.version) for d in metadata.distributions())),
    }


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _is_flag(name: str) -> bool:
    """Whether an environment variable may change what is computed."""
    return name.startswith(("JAX_", "XLA_", "TF_", "CUDA_VISIBLE", "NVIDIA_", "OMP_", "TFDS_"))


def source_changes() -> str:
    """The patch from the commit of this source to its working tree; empty if they are equal."""
    return git_changes(Path(__file__))


def git_state(file: Path) -> dict[str, Any] | None:
    """The commit of a file's repository, and whether its working tree is clean.

    None unless git tracks this very file: an installed package may lie inside a repository that is
    not its own.
    """
    commit = _git(file.parent, "rev-parse", "HEAD")
    status = _git(file.parent, "status", "--porcelain")
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    if commit is None or status is None:
        return None
    return {"commit": commit.strip(), "clean": not status}


def git_changes(file: Path) -> str:
    """The patch from the commit of a file's repository to its working tree.

    Files that are new to git are only named. The patch is empty if git does not track the file.
    """
    if git_state(file) is None:
        return ""
    top = Path((_git(file.parent, "rev-parse", "--show-toplevel") or "").rstrip("\n"))
    diff = _git(top, "diff", "--binary", "HEAD") or ""
    new = _git(top, "ls-files", "--others", "--exclude-standard") or ""
    return diff + "".join(f"# not in git: {name}\n" for name in new.splitlines())


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # A patch may have bytes that are not UTF-8; `write_atomically` writes them as they were.
    return done.stdout.decode(errors="surrogateescape")
