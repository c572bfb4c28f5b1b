"""A run's network with pictures to look at, and the only ways its layers are read."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from resflax.data.augmentation import Normalization, normalize
from resflax.data.source import Split, describe, first_pictures
from resflax.errors import UsageError
from resflax.experiment import Experiment
from resflax.models import build
from resflax.training.checkpoints import Checkpoints
from resflax.training.compilation import compile_fast
from resflax.training.run_folder import RunFolder
from resflax.training.state import drawing

Variables = dict[str, Any]
"""`params` and `batch_stats` by module path."""


@dataclass(frozen=True)
class Network:
    """A network at one step of its training, and pictures of the test split."""

    experiment: Experiment
    module: nn.Module
    variables: Variables
    step: int
    pictures: Split
    """As they are stored."""
    images: jax.Array
    """(N, H, W, C) float32: the pictures, normalised as in training."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) int32."""
        return self.pictures.labels


def load_networks(folder: RunFolder, examples: int) -> list[Network]:
    """The run's network at every checkpoint that is kept, oldest first.

    Args:
      folder: the run's.
      examples: of the test split, from its beginning; the whole split if it has fewer.

    Raises:
      UsageError: if the folder is no run, has no good checkpoint, or its data cannot be read.
    """
    experiment = folder.read_experiment()
    checkpoints = Checkpoints(folder.checkpoints)
    if checkpoints.newest_good(lambda text: None) is None:
        raise UsageError(f"{folder.path} has no checkpoint to look into")
    pictures = first_pictures(experiment.data, "test", examples)
    module = build(experiment.model, describe(experiment.data).num_classes)
    found = []
    for step in checkpoints.steps():
        try:
            saved = checkpoints.restore_arrays(step)
        except (ValueError, OSError, KeyError):
            continue  # damaged, and not the newest
        images = normalize(jnp.asarray(pictures.images), Normalization(**saved["normalization"]))
        variables = {name: saved[name] for name in ("params", "batch_stats")}
        found.append(Network(experiment, module, variables, step, pictures, images))
    return found


def untrained(network: Network) -> Network:
    """The same network before the first step, drawn from the run's seed as in training."""
    key, _ = jax.random.split(jax.random.PRNGKey(network.experiment.seed))
    image = jax.ShapeDtypeStruct((1, *network.images.shape[1:]), jnp.float32)
    draw = drawing(
        lambda key: network.module.lazy_init(key, image, train=False),
        layers=len(jax.tree.leaves(network.variables["params"])) // 2,  # kernels and norms
    )
    return dataclasses.replace(network, variables=dict(draw(key)), step=0)


def apply(module: nn.Module, variables: Variables, images: jax.Array, *, train: bool) -> jax.Array:
    """Logits (N, classes); with `train`, batch norm takes the pictures' own statistics."""
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


Wants = Callable[[nn.Module], bool]


def outputs(network: Network, wants: Wants, *, train: bool = False) -> dict[str, np.ndarray]:
    """What the modules that `wants` picks give for the pictures, by path, in running order."""
    order: list[str] = []

    def run(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        found: dict[str, jax.Array] = {}
        order.clear()

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            output = call(*args, **kwargs)
            if context.method_name == "__call__" and wants(context.module):
                path = ".".join(context.module.path)
                found[path] = output
                order.append(path)
            return output

        with nn.intercept_methods(note):
            apply(network.module, variables, images, train=train)
        return found

    found = compile_fast(run)(network.variables, network.images)
    return {path: np.asarray(found[path]) for path in order}


def kernels(params: Any) -> dict[str, np.ndarray]:
    """The kernel of every convolution and dense layer, by path."""
    flat = flatten_dict(params, sep=".")
    end = ".kernel"
    return {
        path.removesuffix(end): np.asarray(array)
        for path, array in flat.items()
        if path.endswith(end)
    }
