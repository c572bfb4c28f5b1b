"""A run's network as its newest good checkpoint has it, on all devices of this host."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from resflax.data.augmentation import no_normalization
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.models import build
from resflax.training import hosts
from resflax.training.checkpoints import Checkpoints
from resflax.training.devices import Devices
from resflax.training.optimizer import learning_rate, make_optimizer
from resflax.training.run_folder import RunFolder
from resflax.training.state import TrainState, initial_state
from resflax.training.step import AXIS


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights and the normalisation of its pictures."""

    experiment: Experiment
    module: nn.Module
    num_classes: int
    image_shape: tuple[int, int, int]
    """(H, W, C) of what it was trained on."""
    devices: Devices
    state: TrainState
    """On all devices."""
    step: int
    """Steps of training behind it."""


def load_network(
    folder: RunFolder,
    num_classes: int,
    image_shape: tuple[int, int, int],
    say: Callable[[str], None],
) -> TrainedNetwork:
    """Reads the newest good checkpoint of a run.

    Args:
      folder: the run's.
      num_classes: of the run's data.
      image_shape: (H, W, C) of the pictures that it was trained on.
      say: is told which damaged checkpoints are passed over.

    Raises:
      UsageError: if the folder is no run, has no checkpoint, or one of another network.
      TrainingError: if all of its checkpoints are damaged.
    """
    experiment = folder.read_experiment()
    checkpoints = Checkpoints(folder.checkpoints)
    step = hosts.by_first(partial(checkpoints.newest_good, say))
    if step is None:
        raise UsageError(f"{folder.path} has no checkpoint yet")
    drawn = build(experiment.model, num_classes)
    rate = learning_rate(experiment.schedule, experiment.optimizer.learning_rate, 1)
    optimizer = make_optimizer(experiment.optimizer, rate)
    devices = Devices(experiment.parallel, jax.local_devices())
    normalization = no_normalization(image_shape, experiment.data)
    averaged = experiment.ema_decay is not None
    like = devices.abstract(
        lambda: initial_state(drawn, optimizer, normalization, image_shape, 0, averaged=averaged)
    )
    try:
        state, _ = checkpoints.restore(step, like)
    except UsageError:
        height, width, channels = image_shape
        raise UsageError(
            f"checkpoint {step} of {folder.path} does not fit the data: pictures of "
            f"{height}x{width}x{channels} in {num_classes} classes"
        ) from None
    module = build(
        experiment.model,
        num_classes,
        dtype=jnp.dtype(experiment.precision),
        axis_name=AXIS,
        for_training=True,
    )
    return TrainedNetwork(experiment, module, num_classes, image_shape, devices, state, step)
