"""A small network that scores pictures, and the same scores computed one view at a time."""

from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from resflax import Experiment, ResNet
from resflax.data.normalization import Normalization
from resflax.devices.parallel import AXIS, Devices
from resflax.evaluation.network import ScoringNetwork, Weights
from resflax.evaluation.scores import log_probabilities
from resflax.evaluation.views import PictureFormat, Views, view_maker
from resflax.models import build
from resflax.models.stacking import stack

CLASSES = 7
MODEL = ResNet(8)
MEAN, SCALE = np.array([100.0, 110.0, 120.0]), np.array([0.01, 0.02, 0.03])


def scoring_network(
    variables: Any = None, devices: int = 1, parallel: Any = "pmap", mean: Any = MEAN
) -> ScoringNetwork:
    """A ResNet-8 trained on 8x8 pictures of three channels, on some of this process's devices."""
    experiment = Experiment(name="e", model=MODEL, batch_size=16, steps=1)
    normalization = Normalization(jnp.float32(mean), jnp.float32(SCALE))
    on = Devices(parallel, jax.devices()[:devices])
    stacked = {name: stack(tree) for name, tree in (variables or drawn_variables()).items()}
    return ScoringNetwork(
        experiment=experiment,
        module=build(MODEL, CLASSES, axis_name=AXIS, for_training=True),
        num_classes=CLASSES,
        image_shape=(8, 8, 3),
        devices=on,
        weights=on.replicate(Weights(stacked, normalization)),
        step=1,
    )


def drawn_variables(classes: int = CLASSES) -> Any:
    """Drawn `params` and `batch_stats` with which the network tells pictures apart."""
    init = jax.jit(
        lambda key: build(MODEL, classes).init(key, jnp.zeros((1, 8, 8, 3)), train=False)
    )
    variables = init(jax.random.key(3))
    variables["params"]["head"]["kernel"] *= 3
    return variables


def smooth_pictures(*sizes: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    """Pictures of these sizes, each with its own colours."""
    rng = np.random.default_rng(seed)
    return [
        cv2.resize(rng.integers(0, 256, (3, 3, 3), np.uint8), (width, height))
        for height, width in sizes
    ]


@jax.jit
def logits_of(variables: Any, images: Any) -> Any:
    """The network's logits, without the code that is tested."""
    classes = len(variables["params"]["head"]["bias"])
    return build(MODEL, classes).apply(variables, images, train=False)


def one_by_one(variables: Any, views: Iterable[np.ndarray]) -> np.ndarray:
    """The mean softmax of normalised views, one view at a time in float64."""
    probabilities = []
    for view in views:
        logits = np.asarray(logits_of(variables, np.float32(view[None]))[0], float)
        exponentials = np.exp(logits - logits.max())
        probabilities.append(exponentials / exponentials.sum())
    return np.mean(probabilities, axis=0)


def averaged(
    network: ScoringNetwork, views: Views, picture_format: PictureFormat, pictures: list[np.ndarray]
) -> np.ndarray:
    """The probabilities (pictures, classes) by the code that is tested."""
    maker = view_maker(views, picture_format)
    images = [maker.images(picture) for picture in pictures]
    return np.exp(log_probabilities(network, maker, images, len(pictures)))


def normalized(picture: np.ndarray) -> np.ndarray:
    return (picture - MEAN) * SCALE


def corners_and_centre(picture: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The five crops of a picture (H, W, C), the centre last."""
    height, width, _ = picture.shape
    bottom, right = height - size, width - size
    for top, left in [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]:
        yield picture[top : top + size, left : left + size]
