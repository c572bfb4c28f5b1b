"""Loss and errors of a network over a whole split, in which every example counts once."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from resflax.data.normalization import normalize
from resflax.devices.parallel import AXIS
from resflax.errors import TrainingError
from resflax.feeding.batch import Batch
from resflax.training.state import TrainState

Array = jax.Array
AnyArray = TypeVar("AnyArray", Array, np.ndarray)


class Sums(NamedTuple):
    """Sums over examples, each of shape (). The counts are exact."""

    examples: Array
    """int32: number of examples whose weight is above 0. Only these are in the other sums."""
    loss: Array
    """float32: summed cross-entropy."""
    wrong: Array
    """int32: number of examples whose first guess is wrong."""
    wrong_of_five: Array
    """int32: number of examples whose class is not among the first five guesses."""


@dataclass(frozen=True)
class SplitMeans:
    """Means over the examples of a split."""

    loss: float
    """Cross-entropy in nats."""
    top1_error: float
    """Fraction of the examples whose first guess is wrong."""
    top5_error: float
    """Fraction of the examples whose class is not among the first five guesses."""
    examples: int


class EvaluationBatches(Protocol):
    """A split that can be evaluated: see `feeding.feeds.EvaluationFeed`."""

    examples: int
    resident: Any

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Yields what the host gives to the evaluation step for each batch."""


def evaluation_step(module: nn.Module) -> Callable[[TrainState, Batch, Array], Sums]:
    """Makes the step (state, a replica's share of the batch, weights) -> sums over all devices.

    The weights (B,) of the share's examples are 0 or 1.
    """

    def step(state: TrainState, batch: Batch, weights: Array) -> Sums:
        labels = jnp.asarray(batch.labels)
        images = normalize(jnp.asarray(batch.images), state.normalization)
        logits: Any = module.apply(state.evaluated(), images, train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        better, counted = rank(logits, labels), weights > 0
        sums = Sums(
            examples=jnp.sum(counted),
            loss=jnp.sum(jnp.where(counted, losses, 0)),
            wrong=jnp.sum(counted & (better >= 1)),
            wrong_of_five=jnp.sum(counted & (better >= 5)),
        )
        return jax.lax.psum(sums, AXIS)

    return step


def rank(scores: AnyArray, labels: AnyArray) -> AnyArray:
    """Counts the classes that are ranked before the true one: (B,) int.

    If a score of an example is NaN, its count is the number of all classes. Among equal scores, the
    class with the lower number comes first, as in argmax.

    Args:
      scores: (B, classes), a JAX or NumPy array; the result is of the same kind.
      labels: (B,) int, the true classes.
    """
    xp: Any = jnp if isinstance(scores, jax.Array) else np
    classes = scores.shape[-1]
    true = xp.take_along_axis(scores, labels[:, None], axis=-1)
    earlier = xp.arange(classes) < labels[:, None]
    better = xp.sum((scores > true) | ((scores == true) & earlier), axis=-1)
    ranked: AnyArray = xp.where(xp.any(xp.isnan(scores), axis=-1), classes, better)
    return ranked


def measure_split(
    step: Callable[..., Sums],
    state: TrainState,
    feed: EvaluationBatches,
    batch_size: int,
    *,
    tick: Callable[[int], Any] = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
) -> SplitMeans | None:
    """Measures a network on a split, or returns None as soon as `stop()` is true after a batch.

    Args:
      step: an evaluation step that runs on the devices: (state, the feed's `resident`, what the
        feed gives for a batch) -> sums.
      state: has the parameters and statistics that are measured.
      feed: the feed of the split.
      batch_size: number of examples in a batch over all devices; the last batch is filled up.
      tick: is called with the number of examples that are done.
      stop: is called after every batch.

    Raises `TrainingError` if too many pictures, or all of them, cannot be read.
    """
    loss, wrong, wrong_of_five, count = 0.0, 0, 0, 0
    running = (step(state, feed.resident, given) for given in feed.batches(batch_size))
    for number, sums in enumerate(map(jax.device_get, _one_ahead(running)), start=1):
        if stop():
            return None
        loss += float(sums.loss)
        wrong += int(sums.wrong)
        wrong_of_five += int(sums.wrong_of_five)
        count += int(sums.examples)
        tick(min(number * batch_size, feed.examples))
    if not count:
        raise TrainingError("none of the pictures to be measured can be read")
    return SplitMeans(loss / count, wrong / count, wrong_of_five / count, count)


def _one_ahead(running: Iterable[Sums]) -> Iterator[Sums]:
    """Yields each of the sums only after the next one was started, which keeps devices busy."""
    last = None
    for sums in running:
        if last is not None:
            yield last
        last = sums
    if last is not None:
        yield last
