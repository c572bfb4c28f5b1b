"""Files that are written whole or not at all."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Writes text to `path`; whoever reads sees the old content or the new, never a part."""
    draft = path.with_name(f".{path.name}.tmp")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
