"""The state of git repositories: the commit, and the patch from it to the working tree.

Nothing here imports JAX.
"""

import fnmatch
import hashlib
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

MOST_BYTES = 2**20
"""Longer patches are not kept."""
_DIFF = ("diff", "--binary", "--no-color", "--no-ext-diff")
_NEW = "# not in git: "
_LEFT_OUT = "# changed, and not kept: "
_SECRET = (".env*", "*.pem", "*.key", "id_rsa*", "*secret*", "*credential*", ".netrc", ".pypirc")


def git_state(file: Path) -> dict[str, Any] | None:
    """The commit of a file's repository, and whether its working tree is clean.

    None unless git tracks this very file: an installed package may lie inside a repository that is
    not its own.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None
    return _state(file.parent)


def git_changes(file: Path) -> str:
    """The patch from the commit of a file's repository to its working tree.

    It has the Python files that are new to git if this process has imported them; other new files
    are only named. So are files that may hold secrets, and all of them if the patch would be longer
    than `MOST_BYTES`. The patch is empty if git does not track the file.
    """
    return "" if git_state(file) is None else _changes(_top(file))


def experiment_state(file: Path) -> tuple[dict[str, Any] | None, str]:
    """The commit of the repository in which an experiment file lies, and the patch to its tree.

    The file itself may be new to git. The state is None, and the patch empty, if the file lies in
    no repository or git ignores it. The patch is also empty if it is the repository of this source.
    """
    listing = ("ls-files", "--cached", "--others", "--exclude-standard")
    if not _git(file.parent, *listing, "--", f":(literal){file.name}"):
        return None, ""
    state, top = _state(file.parent), _top(file)
    ours = git_state(Path(__file__)) is not None and top == _top(Path(__file__))
    return state, "" if state is None or ours else _changes(top)


def changes_sha256(patch: str) -> str | None:
    """The sha256 of a patch, without the names of new files; None if nothing else is in it."""
    lines = [line for line in patch.splitlines(True) if not line.startswith(_NEW)]
    text = "".join(lines).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest() if text else None


def _state(folder: Path) -> dict[str, Any] | None:
    commit = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain")
    if commit is None or status is None:
        return None
    return {"commit": commit.strip(), "clean": not status}


def _top(file: Path) -> Path:
    return Path((_git(file.parent, "rev-parse", "--show-toplevel") or "").rstrip("\n"))


def _changes(top: Path) -> str:
    """The patch of a repository whose top folder is given: see `git_changes`."""
    changed = _names(_git(top, "diff", "-z", "--name-only", "HEAD"))
    secret = [name for name in changed if _may_be_secret(name)]
    left_out = [f":(top,exclude,literal){name}" for name in secret]
    patch = _git(top, *_DIFF, "HEAD", "--", ":(top)", *left_out) or ""
    new = _names(_git(top, "ls-files", "-z", "--others", "--exclude-standard"))
    imported = _imported_files() if new else set()
    used = [x for x in new if os.path.realpath(top / x) in imported and not _may_be_secret(x)]
    patch += "".join(
        _git(top, *_DIFF, "--no-index", "/dev/null", name, codes=(0, 1)) or "" for name in used
    )
    if len(patch) > MOST_BYTES:
        patch, secret, used = "", changed, []
    patch += "".join(f"{_LEFT_OUT}{name}\n" for name in secret)
    return patch + "".join(f"{_NEW}{name}\n" for name in new if name not in used)


def _imported_files() -> set[str]:
    """The real paths of the Python files that this process has imported."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return {os.path.realpath(x) for x in files if isinstance(x, str) and x.endswith(".py")}


def _may_be_secret(name: str) -> bool:
    return any(fnmatch.fnmatch(Path(name).name.lower(), pattern) for pattern in _SECRET)


def _names(listed: str | None) -> list[str]:
    """The names that git separated by NUL."""
    return [name for name in (listed or "").split("\0") if name]


def _git(folder: Path, *arguments: str, codes: Collection[int] = (0,)) -> str | None:
    """What git prints; None unless it ends with one of the exit codes."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # A patch may have bytes that are not UTF-8; `write_atomically` writes them as they were.
    return done.stdout.decode(errors="surrogateescape") if done.returncode in codes else None
