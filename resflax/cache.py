"""The user's cache folder, for files that can be made again but take time to make."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """The path of `resflax/KIND` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "resflax" / kind
