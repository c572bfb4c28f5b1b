"""Builds the Flax linen module that a declaration describes."""

from typing import TYPE_CHECKING, Any

from resflax.branches import Branch
from resflax.declarations.models import Custom, DenseNet, Model
from resflax.shortcuts import Shortcut

if TYPE_CHECKING:
    import flax.linen as nn

__all__ = ["Branch", "Shortcut", "build"]


def build(
    config: Model,
    num_classes: int,
    *,
    dtype: Any = "float32",
    axis_name: str | None = None,
    synchronized: bool = False,
    for_training: bool = False,
) -> "nn.Module":
    """The network that `config` declares.

    `module.init(key, images, train=False)` returns its variables (`params` and `batch_stats`,
    float32). `module.apply(variables, images, train=...)` maps images (B, H, W, C) float to logits
    (B, num_classes) float32. With `train=True` it needs `mutable=["batch_stats"]` and, if the
    config has dropout or stochastic depth, `rngs={"dropout": key}`.

    Args:
      config: a `ResNet`, `DenseNet` or `Custom` declaration.
      num_classes: number of classes, which is the width of the classifier.
      dtype: number format of convolutions and activations: float32 or bfloat16.
      axis_name: name of the device axis if the module is applied under pmap or shard_map.
      synchronized: whether batch norm's training statistics are shared over `axis_name`.
      for_training: whether to build the form that a run trains. It computes the same numbers, but
        compiles equal units of a stage once, with their variables stacked (`models.stacking`), and
        recomputes activations if `config.remat` is set. Inner layers cannot be intercepted then.
        A `Custom` network has no other form.

    Raises `UsageError` if the code of a user's own class may not be run or is not what it must be.
    """
    # Imported here, so that `models.zoo` can be imported without JAX.
    import jax
    import jax.numpy as jnp

    from resflax.kernels import library
    from resflax.models.dense import DenseNetModule
    from resflax.models.layers import Layers
    from resflax.models.own_parts import build_custom
    from resflax.models.residual import ResNetModule

    fused = for_training and jax.default_backend() == "cpu" and library.load()
    layers = Layers(jnp.dtype(dtype), axis_name, synchronized, fused)
    if isinstance(config, Custom):
        return build_custom(config, num_classes, layers)
    if isinstance(config, DenseNet):
        return DenseNetModule(config.resolved(), num_classes, layers, for_training)
    return ResNetModule(config.resolved(), num_classes, layers, for_training)
