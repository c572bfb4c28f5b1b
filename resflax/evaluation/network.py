"""A trained network on all devices of this host, ready to score pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from resflax.data.description import describe
from resflax.data.encoded import CHANNELS
from resflax.data.normalization import Normalization
from resflax.declarations.data import Streamed
from resflax.declarations.models import Custom
from resflax.devices.parallel import AXIS, Devices
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.models import build
from resflax.models.stacking import stack
from resflax.runs.run_folder import RunFolder
from resflax.runs.trained import TrainedNetwork, load_trained

ImageShape = tuple[int | None, int | None, int]
"""(H, W, C) of pictures; H and W are None if they are not known."""


class Weights(NamedTuple):
    """The arrays with which a network computes."""

    variables: dict[str, Any]
    """`params` and `batch_stats`, in which equal units are stacked (see `models.stacking`)."""
    normalization: Normalization


@dataclass(frozen=True)
class ScoringNetwork:
    """A network with its weights on the devices."""

    experiment: Experiment
    module: nn.Module
    num_classes: int
    image_shape: tuple[int, int, int]
    """(H, W, C) of the images that the network was trained on."""
    devices: Devices
    weights: Weights
    step: int
    """Number of steps that the network was trained for."""


def load_network(
    folder: RunFolder,
    num_classes: int,
    image_shape: tuple[int, int, int],
    say: Callable[[str], None],
    *,
    best: bool = False,
) -> ScoringNetwork:
    """Loads the newest good checkpoint of a run, or its best one, onto all devices of this host.

    Args:
      folder: the run's folder.
      num_classes: number of classes in the run's data.
      image_shape: (H, W, C) of the images that the network was trained on.
      say: is called with a line of text for each damaged checkpoint that is skipped.
      best: whether the checkpoint with the lowest validation error is loaded.

    Raises:
      UsageError: if the folder is not a run's or has no such checkpoint, or if the network does not
        fit the data.
      TrainingError: if all checkpoints of the run are damaged, or the best one is.
    """
    trained = load_trained(folder, say, best=best)
    if not _fits(trained, num_classes, image_shape):
        height, width, channels = image_shape
        raise UsageError(
            f"checkpoint {trained.step} of {folder.path} does not fit the data: pictures of "
            f"{height}x{width}x{channels} in {num_classes} classes"
        )
    return on_local_devices(trained, num_classes, image_shape)


def on_local_devices(
    trained: TrainedNetwork, num_classes: int, image_shape: tuple[int, int, int]
) -> ScoringNetwork:
    """A network that fits these images and classes, copied to all devices of this host."""
    experiment = trained.experiment
    devices = Devices(experiment.parallel, jax.local_devices())
    module = build(
        experiment.model,
        num_classes,
        dtype=jnp.dtype(experiment.precision),
        axis_name=AXIS,
        for_training=True,
    )
    stacked = {name: stack(tree) for name, tree in trained.variables.items()}
    weights = devices.replicate(Weights(stacked, trained.normalization))
    return ScoringNetwork(
        experiment, module, num_classes, image_shape, devices, weights, trained.step
    )


def count_classes(trained: TrainedNetwork) -> int:
    """The number of a network's classes. Only a custom network needs the data set for it."""
    if isinstance(trained.experiment.model, Custom):
        return describe(trained.experiment.data).num_classes
    return len(trained.variables["params"]["head"]["bias"])


def trained_shape(trained: TrainedNetwork) -> ImageShape:
    """The shape of the pictures in training, from the run itself if it tells the shape."""
    data, mean = trained.experiment.data, trained.normalization.mean
    if mean.ndim > 1:
        height, width, channels = mean.shape
        return height, width, channels
    if isinstance(data, Streamed):
        return data.image_size, data.image_size, CHANNELS
    try:
        facts = describe(data)
    except UsageError:
        return None, None, len(mean)
    return facts.height, facts.width, len(mean)


def _fits(trained: TrainedNetwork, num_classes: int, image_shape: tuple[int, int, int]) -> bool:
    """Whether the variables and the normalisation have the shapes that these images require."""
    module = build(trained.experiment.model, num_classes)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    expected = jax.eval_shape(
        lambda image: module.lazy_init(jax.random.key(0), image, train=False), image
    )
    shapes, expected_shapes = (
        {path: leaf.shape for path, leaf in flatten_dict(dict(variables)).items()}
        for variables in (trained.variables, expected)
    )
    mean = trained.normalization.mean.shape
    return shapes == expected_shapes and mean in (image_shape[-1:], image_shape)
