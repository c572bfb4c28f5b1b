"""The network of a run, loaded to be used from Python. The run's data set need not be there."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.class_names import class_names
from resflax.data.normalization import Normalization, normalize
from resflax.devices.parallel import ReplicatedFunction
from resflax.errors import UsageError
from resflax.evaluation.network import (
    ImageShape,
    ScoringNetwork,
    count_classes,
    on_local_devices,
    trained_shape,
)
from resflax.evaluation.scores import scoring_step
from resflax.evaluation.views import Shift
from resflax.experiment import Experiment
from resflax.models import build
from resflax.runs.run_folder import RunFolder
from resflax.runs.trained import TrainedNetwork, load_trained
from resflax.terminal.display import Display

BATCH = 32
"""The most images per device that `predict` sends to the devices at once."""


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A run's network with the weights of its newest good checkpoint."""

    path: Path
    """The run folder."""
    experiment: Experiment = field(repr=False)
    """The experiment of the run, with every derived field written out."""
    step: int
    """Number of steps that the network was trained for."""
    num_classes: int
    image_shape: ImageShape
    """(H, W, C) of the pictures that the network was trained on. H and W are None if only the data
    set tells them and it cannot be found."""
    module: nn.Module = field(repr=False)
    """The linen module, whose units have names of their own. `module.apply(variables,
    normalize(images), train=False)` gives the logits (N, classes) float32."""
    variables: dict[str, Any] = field(repr=False)
    """`params` and `batch_stats` by module path: arrays on one device. They are the moving averages
    if the run has them."""
    normalization: Normalization = field(repr=False)
    """The run's own normalisation of pixel values."""

    @cached_property
    def class_names(self) -> list[str] | None:
        """The names of the classes in order; None if the run's data set cannot be found.

        If the data set does not name its classes, their names are their numbers.
        """
        try:
            names = class_names(self.experiment.data)
        except UsageError:
            return None
        return names if names is not None and len(names) == self.num_classes else None

    def normalize(self, images: Any) -> jax.Array:
        """Normalises images as in training.

        Args:
          images: (N, H, W, C) uint8, as for `predict`.

        Returns:
          (N, H, W, C) float32.

        Raises:
          UsageError: if the images have another type or shape.
        """
        return normalize(jnp.asarray(self._checked(images)), self.normalization)

    def predict(self, images: Any) -> np.ndarray:
        """The probabilities of the classes, computed on all devices of this host.

        They equal those of `scripts/evaluate.py --predictions` for the same images. Every batch is
        filled up to one size, so that the network is compiled once for each size of pictures.

        Args:
          images: (N, H, W, C) uint8. C is that of the pictures in training. H and W may be others
            than in training, unless the network subtracts a mean picture. N may be 0.

        Returns:
          (N, classes) float32.

        Raises:
          UsageError: if the images have another type or shape.
        """
        images = self._checked(images)
        if not len(images):
            return np.zeros((0, self.num_classes), np.float32)
        network, score = self._scoring
        size = self._batch_size(network, images.shape[1:3])
        scores: list[np.ndarray] = []
        running: jax.Array | None = None
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), 0)])
            latest = score(network.weights, (), network.devices.shard(filled))
            if running is not None:  # the devices work on the latest batch meanwhile
                scores.append(np.asarray(running))
            running = latest
        scores.append(np.asarray(running))
        return np.exp(np.concatenate(scores)[: len(images)])

    @cached_property
    def _scoring(self) -> tuple[ScoringNetwork, ReplicatedFunction]:
        """The network on all devices, and the function that scores a batch with it."""
        height, width, channels = self.image_shape
        trained = TrainedNetwork(self.experiment, self.variables, self.normalization, self.step)
        shape = (height or 1, width or 1, channels)
        network = on_local_devices(trained, self.num_classes, shape)
        step = scoring_step(network.module, [Shift(0, 0, mirrored=False)])
        return network, network.devices.parallelize(step, donate_state=False)

    def _batch_size(self, network: ScoringNetwork, size: tuple[int, ...]) -> int:
        """The size of a batch on all devices together.

        A batch has at most as many pixels as a training batch of the run.
        """
        devices, (height, width, _) = len(network.devices.devices), self.image_shape
        fitting = self.experiment.batch_size
        if height is not None and width is not None:
            fitting = fitting * height * width // (size[0] * size[1])
        return -(-max(1, min(fitting, BATCH * devices)) // devices) * devices

    def _checked(self, images: Any) -> np.ndarray:
        """The images as an array. Raises `UsageError` unless the network can take them."""
        size: tuple[int | None, ...] = (None, None)
        if self.normalization.mean.ndim > 1:
            size = self.image_shape[:2]
        needed = (*size, self.image_shape[2])
        named = ", ".join(str(n or name) for n, name in zip(needed, "HWC", strict=True))
        expected = f"the network takes uint8 of shape (N, {named})"
        try:
            array = np.asarray(images)
        except ValueError:  # the images have several shapes
            raise UsageError(f"the images do not form one array; {expected}") from None
        fits = array.ndim == 4 and all(
            length > 0 if wanted is None else length == wanted
            for length, wanted in zip(array.shape[1:], needed, strict=True)
        )
        if array.dtype != np.uint8 or not fits:
            raise UsageError(f"the images are {array.dtype} of shape {array.shape}; {expected}")
        return array


def load(folder: RunFolder, display: Display, *, best: bool = False) -> LoadedNetwork:
    """Loads the network of a run from its newest good checkpoint.

    Args:
      folder: the run's folder.
      display: shows which damaged checkpoints are skipped.
      best: whether to read the checkpoint with the lowest validation error.

    Raises:
      UsageError: if the folder is not a run folder or has no checkpoint.
      TrainingError: if all of its checkpoints are damaged.
    """
    trained = load_trained(folder, display.say, best=best)
    experiment = trained.experiment.resolved()
    num_classes = count_classes(trained)
    return LoadedNetwork(
        path=folder.path,
        experiment=experiment,
        step=trained.step,
        num_classes=num_classes,
        image_shape=trained_shape(trained),
        module=build(experiment.model, num_classes, dtype=jnp.dtype(experiment.precision)),
        variables=trained.variables,
        normalization=trained.normalization,
    )
