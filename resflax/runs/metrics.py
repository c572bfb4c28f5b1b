"""The file metrics.jsonl, to which a run adds one JSON object per line.

Nothing here imports JAX.
"""

import contextlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from resflax.files import sync_folder, write_atomically, writing

_MEASUREMENTS = (
    "epoch", "loss", "error", "gradient_norm", "learning_rate", "images_per_second", "seconds",
)  # fmt: skip


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a metrics file up to the first damaged one; none if there is no file.

    Every line has `step` (int) and `split` (`train`, `validation` or `test`). A line is damaged too
    if a measurement is neither a finite number nor null.
    """
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return list(itertools.takewhile(_is_line, _parse_all(texts)))


def _is_line(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and is_count(value.get("step"))
        and isinstance(value.get("split"), str)
        and all(value.get(name) is None or is_number(value[name]) for name in _MEASUREMENTS)
    )


def is_number(value: Any) -> bool:
    """Whether a value from a JSON file is a finite number; one above 1e300 is taken as infinite."""
    return type(value) in (float, int) and -1e300 < value < 1e300


def is_count(value: Any) -> bool:
    """Whether a value from a JSON file is a whole number that is not negative and fits 64 bits."""
    return type(value) is int and 0 <= value < 2**63


def _parse_all(texts: list[str]) -> Iterable[Any]:
    """The values of lines of JSON, up to the first line that is none."""
    if all(text.startswith("{") and text.endswith("}") for text in texts):
        # Parsing all of them at once takes less time, and the values share the texts of their keys.
        with contextlib.suppress(ValueError, RecursionError):
            values = json.loads(f"[{','.join(texts)}]")
            if len(values) == len(texts):
                return values
    return _parse_each(texts)


def _parse_each(texts: list[str]) -> Iterator[Any]:
    for text in texts:
        try:
            yield json.loads(text)
        except (ValueError, RecursionError):
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
