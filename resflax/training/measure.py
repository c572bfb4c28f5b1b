"""Loss and errors of a network over a whole split, every example counted once."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from resflax.errors import TrainingError
from resflax.training.feeds import TestFeed
from resflax.training.state import TrainState
from resflax.training.step import Sums


@dataclass(frozen=True)
class Measurement:
    """Means over the examples of a split."""

    loss: float
    """Cross-entropy in nats."""
    top1_error: float
    """Fraction whose first guess is wrong."""
    top5_error: float
    """Fraction not among the first five guesses."""
    examples: int


def measure(
    step: Callable[..., Sums],
    state: TrainState,
    feed: TestFeed,
    batch_size: int,
    *,
    tick: Callable[[int], Any] = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
) -> Measurement | None:
    """Measures a split, or returns None as soon as `stop()` is true after a batch.

    Args:
      step: an evaluation step that runs on the devices.
      state: whose parameters and statistics are measured.
      feed: of the split.
      batch_size: examples at a time over all devices; the last batch is filled up.
      tick: is told how many examples are done.
      stop: asked after every batch.

    Raises `TrainingError` if too many pictures cannot be read.
    """
    loss, wrong, wrong_of_five, count = 0.0, 0, 0, 0
    begun = (step(state, feed.on_devices, batch) for batch in feed.batches(batch_size))
    for start, sums in enumerate(map(jax.device_get, _one_ahead(begun))):
        if stop():
            return None
        loss += float(sums.loss)
        wrong += int(sums.wrong)
        wrong_of_five += int(sums.wrong_of_five)
        count += int(sums.examples)
        tick(min((start + 1) * batch_size, feed.examples))
    if not count:
        raise TrainingError("none of the pictures to be measured can be read")
    return Measurement(loss / count, wrong / count, wrong_of_five / count, count)


def _one_ahead(begun: Iterable[Sums]) -> Iterator[Sums]:
    """The same, each when the next has begun: devices work while the host adds up."""
    last = None
    for sums in begun:
        if last is not None:
            yield last
        last = sums
    if last is not None:
        yield last
