"""From a declaration to a Flax linen module."""

from typing import TYPE_CHECKING, Any

from resflax.declarations import models as declarations

if TYPE_CHECKING:
    import flax.linen as nn


def build(
    config: declarations.Model,
    num_classes: int,
    *,
    dtype: Any = "float32",
    axis_name: str | None = None,
    synchronized: bool = False,
    for_training: bool = False,
) -> "nn.Module":
    """The network that `config` declares.

    `module.init(key, images, train=False)` gives its variables (`params` and `batch_stats`,
    float32) and `module.apply(variables, images, train=...)` maps images (B, H, W, C) float to
    logits (B, num_classes) float32; with `train=True` it needs `mutable=["batch_stats"]` and,
    where the config has dropout or stochastic depth, `rngs={"dropout": key}`.

    Args:
      config: a `ResNet` or `DenseNet` declaration.
      num_classes: width of the classifier.
      dtype: of convolutions and activations: float32 or bfloat16.
      axis_name: name of the device axis if the module is applied under pmap or shard_map.
      synchronized: whether batch norm's training statistics are shared over `axis_name`.
      for_training: the form that a run trains: the same numbers, but equal units of a stage are
        compiled once, with their variables stacked (`models.stacking`), and activations are
        recomputed where `config.remat` says so. Layers inside cannot be watched then.
    """
    # Only now, so that the names in `models.zoo` are known without JAX.
    import jax.numpy as jnp

    from resflax.models.dense import DenseNet
    from resflax.models.layers import Layers
    from resflax.models.residual import ResNet

    layers = Layers(dtype=jnp.dtype(dtype), axis_name=axis_name, synchronized=synchronized)
    if isinstance(config, declarations.DenseNet):
        return DenseNet(config.resolved(), num_classes, layers, for_training)
    return ResNet(config.resolved(), num_classes, layers, for_training)
