"""A network's probabilities for pictures, averaged over the views of each picture.

The host makes images from the pictures and sends them to the devices as uint8, in batches of images
of one shape. The last batch of a shape is filled up with repeats, whose results are dropped. So
every picture counts once on any number of devices, and memory holds only the batches that are being
scored and the images that wait for a batch of their shape to fill up.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.normalization import normalize
from resflax.devices.parallel import AXIS
from resflax.errors import UsageError
from resflax.evaluation.network import ScoringNetwork, Weights
from resflax.evaluation.views import Shift, ViewMaker

Array = jax.Array


def log_probabilities(
    network: ScoringNetwork,
    maker: ViewMaker,
    pictures: Iterable[Sequence[np.ndarray]],
    count: int,
    tick: Callable[[int], Any] = lambda done: None,
) -> np.ndarray:
    """The logarithms of the softmax probabilities of pictures, averaged over each picture's views.

    Args:
      network: the network that scores the pictures.
      maker: makes the views of the pictures.
      pictures: for each picture in order, the images that `maker.images` made from it.
      count: number of pictures.
      tick: is called with the number of pictures that have at least one scored view.

    Returns:
      Logarithms (count, classes) float32; -inf for a picture without images.

    Raises:
      UsageError: if the network subtracts a mean picture and the views have other sizes.
    """
    mean = network.weights.normalization.mean
    if mean.ndim > 1 and not maker.one_size:
        height, width, _ = network.image_shape
        raise UsageError(
            f"the network subtracts a mean picture of {height}x{width}, so it takes no pictures of "
            "other sizes; average over --crops 10 instead of whole pictures"
        )
    step = network.devices.parallelize(
        scoring_step(network.module, maker.shifts), donate_state=False
    )
    total = np.full((count, network.num_classes), -np.inf, np.float32)
    images_scored = np.zeros(count, np.int32)

    def add(numbers: np.ndarray, scores: Array) -> None:
        with np.errstate(invalid="ignore"):  # NaN is a valid result
            np.logaddexp.at(total, numbers, np.asarray(scores)[: len(numbers)])
        np.add.at(images_scored, numbers, 1)
        tick(int(np.count_nonzero(images_scored)))

    running: deque[tuple[np.ndarray, Array]] = deque()
    for numbers, images in batches_of_one_shape(pictures, _batch_sizes(network, maker, count)):
        running.append((numbers, step(network.weights, (), network.devices.shard(images))))
        if len(running) > 1:  # the devices work on the newest batch meanwhile
            add(*running.popleft())
    for numbers, scores in running:
        add(numbers, scores)
    return total - np.log(np.maximum(images_scored, 1), dtype=np.float32)[:, None]


def scoring_step(
    module: nn.Module, shifts: Sequence[Shift]
) -> Callable[[Weights, tuple[()], Array], Array]:
    """Makes the step (weights, (), a device's share of the images) -> log probabilities.

    A share is (B, H, W, C) uint8. All devices return the same result (devices * B, classes)
    float32: the logarithms of the probabilities of all images, averaged over the shifts.
    """

    def step(weights: Weights, nothing: tuple[()], images: Array) -> Array:
        normalized = normalize(images, weights.normalization)
        views = jnp.concatenate([shift_images(normalized, shift) for shift in shifts])
        logits: Any = module.apply(weights.variables, views, train=False)
        by_shift = jax.nn.log_softmax(logits).reshape(len(shifts), len(images), -1)
        averaged = jax.nn.logsumexp(by_shift, axis=0) - math.log(len(shifts))
        return jax.lax.all_gather(averaged, AXIS, tiled=True)

    return step


def shift_images(images: Array, shift: Shift) -> Array:
    """Makes one view of each normalised image (B, H, W, C); it has the size of the image."""
    down, right, mirrored = shift
    padding = ((0, 0, 0), (-down, down, 0), (-right, right, 0), (0, 0, 0))
    images = jax.lax.pad(images, jnp.zeros((), images.dtype), padding)
    return images[:, :, ::-1] if mirrored else images


def batches_of_one_shape(
    pictures: Iterable[Sequence[np.ndarray]], batch_size: Callable[[tuple[int, ...]], int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Gathers the images of pictures into batches; all images of a batch have one shape.

    Yields the numbers (n,) of the pictures and a batch (B, H, W, C) uint8 with one image for each
    number. B is `batch_size` of the shape (H, W, C); the images after the first n are repeats.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for number, images in enumerate(pictures):
        for image in images:
            same_shape = waiting.setdefault(image.shape, [])
            same_shape.append((number, image))
            if len(same_shape) == batch_size(image.shape):
                yield _filled_up(same_shape, len(same_shape))
                same_shape.clear()
    for shape, same_shape in waiting.items():
        if same_shape:
            yield _filled_up(same_shape, batch_size(shape))


def _filled_up(
    numbered: list[tuple[int, np.ndarray]], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.array([number for number, _ in numbered])
    images = [image for _, image in numbered]
    return numbers, np.stack(images + images[-1:] * (batch_size - len(images)))


_MOST_OF_MANY_SHAPES = 8
"""The most images per device in a batch, if images have different shapes. Larger batches would
often have to be filled up with repeats."""


def _batch_sizes(
    network: ScoringNetwork, maker: ViewMaker, count: int
) -> Callable[[tuple[int, ...]], int]:
    """Returns a function from the shape of an image to the size of a batch on all devices together.

    A batch of views has at most as many pixels as a training batch of the run, and its size is a
    multiple of the number of devices.
    """
    devices = len(network.devices.devices)
    height, width, _ = network.image_shape
    pixels = network.experiment.batch_size * height * width

    def batch_size(shape: tuple[int, ...]) -> int:
        fitting = pixels // (shape[0] * shape[1] * len(maker.shifts))
        most = count if maker.one_size else min(count, _MOST_OF_MANY_SHAPES * devices)
        return -(-max(1, min(fitting, most)) // devices) * devices

    return batch_size
