"""The user's cache folder: things that can be made again, kept because making them takes time."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """`resflax/KIND` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "resflax" / kind
