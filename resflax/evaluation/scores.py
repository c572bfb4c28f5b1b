"""A network's probabilities for pictures, averaged over their views.

Pictures are cut on the host and go to the devices as uint8 in batches of one shape each; the last
batch of a shape is filled up with repeats, whose results are dropped. So every picture counts
once, on any number of devices, and only the batches and the pictures that wait for one are in
memory.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.augmentation import normalize
from resflax.errors import UsageError
from resflax.evaluation.network import TrainedNetwork
from resflax.evaluation.views import Cutting, Shift
from resflax.training.state import TrainState
from resflax.training.step import AXIS

Array = jax.Array


def log_probabilities(
    network: TrainedNetwork,
    cutting: Cutting,
    cuts: Iterable[Sequence[np.ndarray]],
    count: int,
    tick: Callable[[int], Any] = lambda done: None,
) -> np.ndarray:
    """Log of the softmax probabilities (count, classes) float32, averaged over the views.

    Args:
      network: whose they are.
      cutting: how the views are made.
      cuts: what `cutting.cut` gave for each of the `count` pictures, in order; for a picture of
        which there is nothing the result is -inf.
      count: of the pictures.
      tick: is told of how many pictures a view has been seen.

    Raises:
      UsageError: if the network subtracts a mean picture, and views have another size.
    """
    mean = network.state.normalization.mean
    if mean.ndim > 1 and not cutting.alike:
        height, width, _ = network.image_shape
        raise UsageError(
            f"the network subtracts a mean picture of {height}x{width}, so it takes no pictures of "
            "other sizes; average over --crops 10 instead of whole pictures"
        )
    step = network.devices.parallelize(
        scoring_step(network.module, cutting.shifts), donate_state=False
    )
    total = np.full((count, network.num_classes), -np.inf, np.float32)
    cut = np.zeros(count, np.int32)

    def add(owners: np.ndarray, scores: Array) -> None:
        with np.errstate(invalid="ignore"):  # NaN is a result as well
            np.logaddexp.at(total, owners, np.asarray(scores)[: len(owners)])
        np.add.at(cut, owners, 1)
        tick(int(np.count_nonzero(cut)))

    running: deque[tuple[np.ndarray, Array]] = deque()
    sizes = _batch_sizes(network, cutting, count)
    for owners, images in batches(cuts, sizes):
        running.append((owners, step(network.state, (), images)))
        if len(running) > 1:  # while the devices work on the newest
            add(*running.popleft())
    for owners, scores in running:
        add(owners, scores)
    return total - np.log(np.maximum(cut, 1), dtype=np.float32)[:, None]


def scoring_step(
    module: nn.Module, shifts: Sequence[Shift]
) -> Callable[[TrainState, tuple[()], Array], Array]:
    """The step (state, (), a share of images (B, H, W, C) uint8) -> log probabilities of all.

    Those are (B over all devices, classes) float32, of probabilities averaged over the shifts.
    """

    def step(state: TrainState, nothing: tuple[()], images: Array) -> Array:
        pictures = normalize(images, state.normalization)
        views = jnp.concatenate([shifted(pictures, shift) for shift in shifts])
        logits: Any = module.apply(state.evaluated(), views, train=False)
        of_views = jax.nn.log_softmax(logits).reshape(len(shifts), len(images), -1)
        averaged = jax.nn.logsumexp(of_views, axis=0) - math.log(len(shifts))
        return jax.lax.all_gather(averaged, AXIS, tiled=True)

    return step


def shifted(pictures: Array, shift: Shift) -> Array:
    """A view of normalised pictures (B, H, W, C) in the same size."""
    down, right, mirrored = shift
    moved = ((0, 0, 0), (-down, down, 0), (-right, right, 0), (0, 0, 0))
    pictures = jax.lax.pad(pictures, jnp.zeros((), pictures.dtype), moved)
    return pictures[:, :, ::-1] if mirrored else pictures


def batches(
    cuts: Iterable[Sequence[np.ndarray]], size_of: Callable[[tuple[int, ...]], int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What was cut of each picture, gathered by shape.

    Gives the numbers (n,) of the pictures and what was cut of them, (B, H, W, C) uint8, where B is
    `size_of` the shape (H, W, C); beyond the first n are repeats.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for owner, parts in enumerate(cuts):
        for part in parts:
            alike = waiting.setdefault(part.shape, [])
            alike.append((owner, part))
            if len(alike) == size_of(part.shape):
                yield _batch(alike, len(alike))
                alike.clear()
    for shape, alike in waiting.items():
        if alike:
            yield _batch(alike, size_of(shape))


def _batch(alike: list[tuple[int, np.ndarray]], size: int) -> tuple[np.ndarray, np.ndarray]:
    owners = np.array([owner for owner, _ in alike])
    images = [image for _, image in alike]
    return owners, np.stack(images + images[-1:] * (size - len(images)))


_DIFFERENT = 8
"""Pictures of a shape for each device where shapes differ: more would often be filled up."""


def _batch_sizes(
    network: TrainedNetwork, cutting: Cutting, count: int
) -> Callable[[tuple[int, ...]], int]:
    """How many pictures of a shape the devices take at a time.

    As many pixels as an evaluation during the training has; multiples of the number of devices.
    """
    devices = len(network.devices.devices)
    height, width, _ = network.image_shape
    pixels = network.experiment.batch_size * height * width

    def size_of(shape: tuple[int, ...]) -> int:
        fitting = pixels // (shape[0] * shape[1] * len(cutting.shifts))
        most = count if cutting.alike else min(count, _DIFFERENT * devices)
        return -(-max(1, min(fitting, most)) // devices) * devices

    return size_of
