"""All published networks in one table: what is counted beside what was printed."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from resflax.models.published import PUBLISHED, Published
from resflax.models.summary import Summary, summarize
from resflax.models.zoo import TASKS, named


def count(names: Iterable[str]) -> dict[str, Summary]:
    """The summary of each named network on the pictures it was published for."""
    found = {}
    for name in names:
        task = TASKS[named(name).layout]
        found[name] = summarize(named(name), task.num_classes, task.image_shape)
    return found


def agrees(printed: str, counted: int) -> bool:
    """Whether a count rounds to a printed figure such as `0.27 M`, `3.8 G` or `11,689,512`."""
    number, _, unit = printed.replace(",", "").partition(" ")
    decimals = len(number.partition(".")[2])
    return f"{counted / {'': 1, 'M': 1e6, 'G': 1e9}[unit]:.{decimals}f}" == number


def rows(summaries: dict[str, Summary]) -> list[dict[str, Any]]:
    """Count, print and note of each network, as plain JSON values."""
    found = []
    for name, summary in summaries.items():
        printed = PUBLISHED.get(name, Published())
        found.append(
            {
                "name": name,
                "params": summary.params,
                "published_params": printed.params,
                "macs": summary.macs,
                "published_macs": printed.macs,
                "source": printed.source,
                "note": printed.note,
            }
        )
    return found


def table(summaries: dict[str, Summary]) -> Table:
    """For a terminal; a printed figure that the count does not round to is marked with *."""
    found = Table(title="published networks: counted beside printed (* where they differ)")
    found.add_column("network", no_wrap=True)
    for column in ("parameters", "printed", "multiply-adds", "printed"):
        found.add_column(column, justify="right", no_wrap=True)
    found.add_column("source and note")
    for row in rows(summaries):
        notes = "; ".join(filter(None, (row["source"], row["note"])))
        found.add_row(
            row["name"],
            f"{row['params']:,}",
            _marked(row["published_params"], row["params"]),
            f"{row['macs']:,}",
            _marked(row["published_macs"], row["macs"]),
            notes,
        )
    return found


def _marked(printed: str | None, counted: int) -> str:
    if printed is None:
        return ""
    return printed if agrees(printed, counted) else f"{printed} *"
