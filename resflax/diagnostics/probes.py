"""What each depth of a network knows of the class and of the picture, as a linear reader sees it.

A linear probe tells the class from the maps of one depth (Alain & Bengio 2016, arXiv 1610.01644),
and a linear regression rebuilds the picture from them. Both are ridge regressions on all values of
the maps, fitted to training pictures and measured on the network's own pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.in_memory import Split
from resflax.data.normalization import normalize
from resflax.devices.compilation import compile_fast
from resflax.diagnostics import ridge
from resflax.diagnostics.inspected import InspectedNetwork, Variables, apply
from resflax.models.dense import DenseLayer, Transition
from resflax.models.layers import Conv
from resflax.models.units import ResidualUnit

UNITS = 20
"""The most units that are probed; of deeper networks, as many units at even distances."""

LARGEST_TARGET = 32
"""The largest side of the pictures that are rebuilt; larger pictures are averaged down first."""


@dataclass(frozen=True)
class UnitKnowledge:
    """What can be read linearly from the maps after one unit."""

    name: str
    """Path of the unit. `pixels` is the picture as the network gets it, and `stem` is the input of
    the first unit. After a dense layer, the maps are all those of its block so far."""
    layer: int
    """Number of weighted layers that the maps have passed, without those on shortcuts."""
    accuracy: float
    """Share of the network's pictures whose class the probe tells; NaN if the maps overflow."""
    reconstructed: float
    """Share of the variance of the network's pictures that is rebuilt, 1 - SSE / SST. SST is the
    squared error of the mean fitting picture, so that 0 means that nothing is known; NaN if the
    maps overflow."""


def probe_units(network: InspectedNetwork, fitting: Split) -> list[UnitKnowledge]:
    """The knowledge of the pixels, of the stem, and after units at even distances, in order.

    Batch norm uses the running averages.

    Args:
      network: a residual, plain or dense network, whose pictures are the held-out ones.
      fitting: the pictures that the probes are fitted to, of the same kind; at least two.
    """
    count = len(fitting)
    images = jnp.concatenate(
        [normalize(jnp.asarray(fitting.images), network.normalization), network.images]
    )
    depths = depths_of(network)
    grams = _grams_of(network.module, count, tuple(depths))(network.variables, images)
    labels = np.concatenate([fitting.labels, network.labels])
    classes = np.eye(int(labels.max()) + 1)[labels[:count]]
    pixels = _pixels(images)
    knowledge = []
    for name, layer in depths.items():
        gram = np.asarray(grams[name])
        if not np.isfinite(gram).all():
            knowledge.append(UnitKnowledge(name, layer, np.nan, np.nan))
            continue
        scores, rebuilt = ridge.predict(gram[:count], gram[count:], classes, pixels[:count])
        accuracy = float(np.mean(scores.argmax(1) == network.labels))
        share = share_of_variance(pixels[count:], rebuilt, pixels[:count].mean(0))
        knowledge.append(UnitKnowledge(name, layer, accuracy, share))
    return knowledge


def depths_of(network: InspectedNetwork) -> dict[str, int]:
    """The places that are probed, in order, with the number of weighted layers before each.

    They are the pixels, the stem, and units at even distances, of which the last is the last unit.
    """
    layers: dict[str, int] = {}

    def visit(variables: Variables, images: jax.Array) -> None:
        _visit(
            network.module,
            variables,
            images,
            gram=lambda maps: jnp.zeros(()),
            see=lambda name, layer, _: layers.update({name: layer}),
        )

    jax.eval_shape(visit, network.variables, network.images[:1])
    before, units = list(layers)[:2], list(layers)[2:]
    places = np.linspace(len(units) - 1, 0, min(len(units), UNITS)).round().astype(int)
    return {name: layers[name] for name in [*before, *(units[i] for i in sorted(places))]}


@lru_cache(maxsize=1)  # one network before and after its training, and with other seeds
def _grams_of(module: nn.Module, fitting: int, names: tuple[str, ...]) -> Callable[..., Any]:
    """A function (variables, images) -> a Gram matrix (N + M, N) float32 for each name.

    It has the inner products of all maps, with those of the first N = `fitting` images. The mean
    map of these is subtracted from all.
    """

    def gram(maps: jax.Array) -> jax.Array:
        flat = maps.reshape(len(maps), -1).astype(jnp.float32)
        flat = flat - flat[:fitting].mean(0)
        return jnp.matmul(flat, flat[:fitting].T, precision=jax.lax.Precision.HIGHEST)

    def run(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        grams: dict[str, jax.Array] = {}

        def keep(name: str, layer: int, gram: jax.Array) -> None:
            if name in names:
                grams[name] = gram

        _visit(module, variables, images, gram, keep)
        return grams

    return compile_fast(run)


def _visit(
    module: nn.Module,
    variables: Variables,
    images: jax.Array,
    gram: Callable[[jax.Array], jax.Array],
    see: Callable[[str, int, jax.Array], None],
) -> None:
    """Applies a network, and calls `see(name, layer, gram)` at each depth, in order."""
    layer, begun, block = 0, False, jnp.zeros(())

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal layer, begun, block
        inner: nn.Module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(inner, ResidualUnit | DenseLayer) and not begun:
            begun = True
            first = args[0][0].settled() if isinstance(inner, DenseLayer) else args[0]
            see("stem", layer, gram(first))
        output = call(*args, **kwargs)
        if isinstance(inner, Conv | nn.Conv):
            layer += "shortcut" not in inner.path
        elif isinstance(inner, ResidualUnit | Transition):
            see(".".join(inner.path), layer, gram(output))
        elif isinstance(inner, DenseLayer):
            # The inner products of concatenated maps are the sums of the maps' inner products.
            groups = args[0]
            block = (gram(groups[0].settled()) if len(groups) == 1 else block) + gram(output)
            see(".".join(inner.path), layer, block)
        return output

    see("pixels", layer, gram(images))
    with nn.intercept_methods(note):
        apply(module, variables, images, train=False)


def _pixels(images: jax.Array) -> np.ndarray:
    """The pixels (N, pixels) float64 of images (N, H, W, C), averaged down where they are large."""
    factor = -(-max(images.shape[1:3]) // LARGEST_TARGET)
    sides = tuple(min(factor, side) for side in images.shape[1:3])
    averaged = nn.avg_pool(images, sides, sides)
    return np.asarray(averaged, np.float64).reshape(len(images), -1)


def share_of_variance(true: np.ndarray, rebuilt: np.ndarray, mean: np.ndarray) -> float:
    """1 - SSE / SST, where SST is the squared error of the mean; 0 if that has no error.

    Args:
      true: (M, T) values.
      rebuilt: (M, T) predictions of these.
      mean: (T,) the prediction by one who knows nothing.
    """
    total = float(np.square(true - mean).sum())
    return 1 - float(np.square(true - rebuilt).sum()) / total if total else 0.0
