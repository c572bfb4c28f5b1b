"""The way in which functions that read or write much data show their progress."""

from collections.abc import Callable, Iterable, Sequence

ShowProgress = Callable[[Sequence[int], str], Iterable[int]]
"""Iterates over a sequence and shows the progress: (sequence, description) -> its items."""


def show_nothing(items: Sequence[int], description: str) -> Iterable[int]:
    """A `ShowProgress` that shows nothing."""
    return items
