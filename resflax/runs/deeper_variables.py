"""The variables of a deeper network that computes what a trained one does, and their check."""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.in_memory import spread_pictures
from resflax.data.normalization import Normalization, normalize
from resflax.declarations.data import Data, Streamed
from resflax.declarations.deepening import added_parts
from resflax.declarations.models import DenseNet, Model, Published, ResNet
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.models import build, identity_units, unread_layers
from resflax.models.identity_units import Signal, Variables
from resflax.models.stacking import stack
from resflax.runs.trained import TrainedNetwork
from resflax.training.state import drawing

MEASURED = 1024
"""The most training pictures from which the moments of signals are measured."""
COMPARED = 256
"""The most test pictures on which the logits are compared."""
TOLERANCE = 1e-4
"""The largest difference of two logits, as a share of the largest logit."""
_BATCH = 64


class Agreement(NamedTuple):
    """How far the logits of two networks are apart."""

    difference: float
    """The largest difference of two logits."""
    largest: float
    """The largest absolute logit of the shallower network."""

    @property
    def holds(self) -> bool:
        """Whether the difference is no more than rounding; False if a number is not finite."""
        return self.difference <= TOLERANCE * self.largest


def deeper_variables(trained: TrainedNetwork, experiment: Experiment) -> Variables:
    """The variables with which the deeper network begins, by module path, on the host.

    What trains freely in the added layers is drawn from the experiment's seed, as in a run that
    starts from scratch.

    Raises `UsageError` if training pictures are needed and cannot be read.
    """
    there, here = trained.experiment.model.resolved(), experiment.model.resolved()
    before = jax.device_get(trained.variables)
    if isinstance(there, DenseNet) and isinstance(here, DenseNet):
        return unread_layers.deepened(there, here, before, _draw(trained, here, experiment.seed))
    assert isinstance(there, ResNet), "check_deeper refuses others"
    assert isinstance(here, ResNet), "check_deeper refuses others"
    signals: dict[int, Signal] = {}
    if identity_units.needs_signals(here):
        stages = tuple(added_parts(there, here))
        signals = _measure(trained, there, stages, experiment.data)
    drawn = _draw(trained, here, experiment.seed)
    return identity_units.deepened(there, here, before, drawn, signals)


def _draw(trained: TrainedNetwork, deeper: Published, seed: int) -> Variables:
    """The variables of the deeper network that a run from scratch would begin with."""
    key, _ = jax.random.split(jax.random.PRNGKey(seed))
    image = jax.ShapeDtypeStruct((1, *_image_shape(trained)), jnp.float32)
    module = build(deeper, _classes(trained))
    draw = drawing(
        lambda key: module.lazy_init(key, image, train=False), layers=deeper.depth, stacked=False
    )
    return dict(jax.device_get(draw(key)))


def _classes(trained: TrainedNetwork) -> int:
    return len(trained.variables["params"]["head"]["bias"])


def _image_shape(trained: TrainedNetwork) -> tuple[int, int, int]:
    """The shape of pictures that the network can take, if no picture can be read."""
    mean, data = trained.normalization.mean, trained.experiment.data
    if mean.ndim == 3:
        height, width, channels = mean.shape
        return height, width, channels
    side = data.image_size if isinstance(data, Streamed) else 32
    return side, side, len(mean)


def _measure(
    trained: TrainedNetwork, config: ResNet, stages: tuple[int, ...], data: Data
) -> dict[int, Signal]:
    """The signals that the added units of some stages will get, over training pictures.

    Raises `UsageError` if these cannot be read.
    """
    try:
        pictures = spread_pictures(data, "train", MEASURED).images
    except UsageError as error:
        raise UsageError(
            f"the added batch norms need the moments of training pictures, and {error}"
        ) from None
    module = build(config, _classes(trained))
    measure = jax.jit(identity_units.signal_moments(config, module, stages))
    sums: dict[int, Any] = dict.fromkeys(stages, 0.0)
    with jax.default_matmul_precision("highest"):
        for images in _batches(pictures, trained.normalization):
            for stage, moments in measure(trained.variables, images).items():
                sums[stage] += len(images) * np.asarray(moments, np.float64)
    signals = {}
    for stage, (mean, square) in ((s, total / len(pictures)) for s, total in sums.items()):
        signals[stage] = Signal(mean, np.maximum(square - mean**2, 0))
    return signals


def _batches(pictures: np.ndarray, normalization: Normalization) -> Iterator[jax.Array]:
    """The pictures (N, H, W, C) uint8, normalised, in batches."""
    for start in range(0, len(pictures), _BATCH):
        yield normalize(jnp.asarray(pictures[start : start + _BATCH]), normalization)


def pictures_to_compare(trained: TrainedNetwork, data: Data) -> tuple[np.ndarray, str]:
    """Pictures (N, H, W, C) uint8 to compare logits on, and how to call them.

    They are random if the run's own data cannot be read. Raises `UsageError` if `data` cannot be
    read and was named anew.
    """
    try:
        return spread_pictures(data, "test", COMPARED).images, "test pictures"
    except UsageError as error:
        if data != trained.experiment.data:
            raise
        shape = (_BATCH, *_image_shape(trained))
        random = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        return random, f"random pictures ({error})"


def compare(
    trained: TrainedNetwork, deeper: Model, variables: Variables, pictures: np.ndarray
) -> Agreement:
    """Compares the logits of a trained network with those of a deeper one, in evaluation.

    Args:
      trained: the trained network.
      deeper: the declaration of the other network.
      variables: the variables of the other network.
      pictures: (N, H, W, C) uint8; they are normalised as in training.

    Returns:
      How far the logits are apart. They are computed in float32, whatever the run's precision is.
    """
    networks = [(trained.experiment.model, trained.variables), (deeper, variables)]
    logits = []
    with jax.default_matmul_precision("highest"):
        for model, arrays in networks:
            module = build(model, _classes(trained), for_training=True)
            apply = jax.jit(partial(module.apply, train=False))
            stacked = {name: stack(tree) for name, tree in arrays.items()}
            batches = _batches(pictures, trained.normalization)
            logits.append(np.concatenate([np.asarray(apply(stacked, x)) for x in batches]))
    before, after = logits
    return Agreement(float(np.max(np.abs(after - before))), float(np.max(np.abs(before))))
