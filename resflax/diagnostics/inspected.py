"""A run's network with the pictures that it is inspected on, and functions to read its layers."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from resflax.data.description import describe
from resflax.data.in_memory import Split, spread_pictures
from resflax.data.normalization import Normalization, normalize
from resflax.devices.compilation import compile_fast
from resflax.devices.randomness import pinned_randomness
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.models import build
from resflax.models.layers import BatchNorm
from resflax.runs.checkpoints import Checkpoints
from resflax.runs.run_folder import RunFolder
from resflax.runs.trained import read_trained
from resflax.training.state import drawing

Variables = dict[str, Any]
"""A network's `params` and `batch_stats`, nested by module path."""


@dataclass(frozen=True)
class InspectedNetwork:
    """A network at one step of its training, with pictures of the test split."""

    experiment: Experiment
    module: nn.Module
    variables: Variables
    step: int
    pictures: Split
    """The pictures with their labels, not normalised."""
    images: jax.Array
    """(N, H, W, C) float32: the pictures, normalised as in training."""
    normalization: Normalization
    """The normalisation of the training."""

    @property
    def labels(self) -> np.ndarray:
        """The true classes (N,) int32 of the pictures."""
        return self.pictures.labels


def load_networks(
    folder: RunFolder, examples: int, say: Callable[[str], None]
) -> list[InspectedNetwork]:
    """The run's network at each of its good checkpoints, oldest first.

    Args:
      folder: the run's folder.
      examples: number of pictures, which are taken at even distances from the test split.
      say: is called with a line for every unfinished or damaged checkpoint that is skipped.

    Raises:
      UsageError: if the folder is not a run's or has no checkpoint, or if the data cannot be read.
      TrainingError: if all checkpoints are damaged.
    """
    experiment = folder.read_experiment()
    checkpoints = Checkpoints(folder.checkpoints)
    steps = sorted(checkpoints.good(say))
    if not steps:
        raise UsageError(f"{folder.path} has no checkpoint to look into")
    pictures = spread_pictures(experiment.data, "test", examples)
    module = build(experiment.model, describe(experiment.data).num_classes)
    networks = []
    for step in steps:
        trained = read_trained(experiment, checkpoints, step)
        images = normalize(jnp.asarray(pictures.images), trained.normalization)
        networks.append(
            InspectedNetwork(
                experiment, module, trained.variables, step, pictures, images, trained.normalization
            )
        )
    return networks


@pinned_randomness()
def untrained(network: InspectedNetwork) -> InspectedNetwork:
    """The same network before its first step, with weights drawn from the run's seed."""
    key, _ = jax.random.split(jax.random.PRNGKey(network.experiment.seed))
    image = jax.ShapeDtypeStruct((1, *network.images.shape[1:]), jnp.float32)
    draw = drawing(
        lambda key: network.module.lazy_init(key, image, train=False),
        layers=len(jax.tree.leaves(network.variables["params"])) // 2,  # most have two arrays
        stacked=False,
    )
    return dataclasses.replace(network, variables=dict(draw(key)), step=0)


def with_statistics_of(network: InspectedNetwork, images: jax.Array) -> InspectedNetwork:
    """The network with the batch statistics of the images in place of its running averages.

    The averages of a network before its first step are 0 and 1, with which its signals may vanish
    or explode. The statistics are exact for batch norms with our momentum, 0.9.
    """

    def measure(variables: Variables, images: jax.Array) -> Any:
        # Running averages that begin at zero contain only the statistics of these images.
        empty = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
        _, changed = network.module.apply(
            {**variables, "batch_stats": empty},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.PRNGKey(0)},
        )
        return jax.tree.map(lambda sums: sums / (1 - BatchNorm.momentum), changed["batch_stats"])

    statistics = compile_fast(measure)(network.variables, images)
    return dataclasses.replace(network, variables={**network.variables, "batch_stats": statistics})


def apply(module: nn.Module, variables: Variables, images: jax.Array, *, train: bool) -> jax.Array:
    """The logits (N, classes). With `train`, batch norm uses the statistics of these images."""
    if not train:
        return module.apply(variables, images, train=False)  # type: ignore[return-value]
    logits, _ = module.apply(
        variables,
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.PRNGKey(0)},
    )
    return logits


def outputs(
    network: InspectedNetwork, wanted: Callable[[nn.Module], bool], *, train: bool = False
) -> dict[str, np.ndarray]:
    """The outputs of the wanted modules for all pictures, by path, in the order of the calls.

    Args:
      network: the network, which is applied to its own pictures.
      wanted: decides whether a module's output is returned.
      train: whether the network is applied in training mode.
    """
    order: list[str] = []

    def run(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        outputs_by_path: dict[str, jax.Array] = {}
        order.clear()

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            output = call(*args, **kwargs)
            if context.method_name == "__call__" and wanted(context.module):
                path = ".".join(context.module.path)
                outputs_by_path[path] = output
                order.append(path)
            return output

        with nn.intercept_methods(note):
            apply(network.module, variables, images, train=train)
        return outputs_by_path

    by_path = compile_fast(run)(network.variables, network.images)
    return {path: np.asarray(by_path[path]) for path in order}


def kernels(params: Any) -> dict[str, np.ndarray]:
    """The kernel of every convolution and dense layer, by path."""
    flat = flatten_dict(params, sep=".")
    end = ".kernel"
    return {
        path.removesuffix(end): np.asarray(array)
        for path, array in flat.items()
        if path.endswith(end)
    }
