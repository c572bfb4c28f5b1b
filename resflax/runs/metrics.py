"""The file metrics.jsonl, to which a run adds one JSON object per line.

Nothing here imports JAX.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from resflax.files import sync_folder, write_atomically, writing


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a metrics file up to the first damaged one; none if there is no file.

    Every line has `step` (int) and `split` (`train`, `validation` or `test`).
    """
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    lines = []
    for value in _parse_all(texts):
        try:
            lines.append(value | {"step": int(value["step"]), "split": str(value["split"])})
        except (ValueError, TypeError, KeyError):
            break
    return lines


def _parse_all(texts: list[str]) -> Iterable[Any]:
    """The values of lines of JSON, up to the first line that is none."""
    if all(text.startswith("{") and text.endswith("}") for text in texts):
        # Parsing all of them at once takes less time, and the values share the texts of their keys.
        with contextlib.suppress(ValueError):
            values = json.loads(f"[{','.join(texts)}]")
            if len(values) == len(texts):
                return values
    return _parse_each(texts)


def _parse_each(texts: list[str]) -> Iterator[Any]:
    for text in texts:
        try:
            yield json.loads(text)
        except ValueError:
            return


def best_steps(lines: Sequence[dict[str, Any]]) -> list[int]:
    """The steps whose error on the validation split was below all earlier ones, in order.

    So the last one is the best, and the best of equal ones is the earliest.
    """
    steps: list[int] = []
    lowest = math.inf
    for line in lines:
        if line["split"] == "validation" and line["error"] < lowest:
            lowest = line["error"]
            steps.append(line["step"])
    return steps


def rewrite(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Replaces the file with these lines. Raises `TrainingError` if it cannot be written."""
    with writing(path):
        write_atomically(path, "".join(map(_dump, lines)))


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line, and hands it to the operating system before returning.

    Raises `TrainingError` if it cannot be written.
    """
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.write(_dump(line))


def sync(path: Path) -> None:
    """Waits until the lines are on the disk. Raises `TrainingError` if that fails."""
    with writing(path):
        with open(path, "ab") as file:
            os.fsync(file.fileno())
        sync_folder(path.parent)


def _dump(line: dict[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"
