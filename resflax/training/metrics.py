"""metrics.jsonl: a JSON object per line, written as the run goes, cut back when it goes back."""

import json
from pathlib import Path
from typing import Any

from resflax.training import hosts
from resflax.training.files import write_atomically, writing


class Metrics:
    """The measurements of one run, in memory and, by the first host, on disk.

    Every line has `step`, `epoch`, `split` (`train`, `validation` or `test`), `loss` (nats),
    `error` (a fraction), `learning_rate` and `images_per_second`; see `training.record` for the
    rest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = hosts.by_first(lambda: read(path))

    def rewind(self, step: int) -> None:
        """Drops what was measured after `step`, and a line that was cut off while written."""
        self.lines = [line for line in self.lines if line["step"] <= step]
        hosts.by_first(self._rewrite)

    def _rewrite(self) -> None:
        with writing(self.path):
            write_atomically(self.path, "".join(map(_dump, self.lines)))

    def append(self, **line: Any) -> None:
        """Adds a line; it is on its way to disk when this returns.

        Raises `TrainingError` if it cannot be written.
        """
        hosts.by_first(lambda: self._write(line))
        self.lines.append(line)

    def _write(self, line: dict[str, Any]) -> None:
        with writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(_dump(line))

    def has(self, step: int, split: str) -> bool:
        """Whether there is a line for that step and split."""
        return any(line["step"] == step and line["split"] == split for line in self.lines)

    def last(self, split: str) -> dict[str, Any] | None:
        """The newest line of a split."""
        return next((line for line in reversed(self.lines) if line["split"] == split), None)


def _dump(line: dict[str, Any]) -> str:
    return json.dumps(line, allow_nan=False) + "\n"


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, up to the first that is not whole; none if there is no file."""
    lines: list[dict[str, Any]] = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return lines
    for line in text.splitlines():
        try:
            found = json.loads(line)
            lines.append(found | {"step": int(found["step"]), "split": str(found["split"])})
        except (ValueError, TypeError, KeyError):
            break
    return lines
