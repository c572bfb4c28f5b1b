"""Mixup and cutmix: pictures mixed in pairs, and the targets that go with them.

Places 2i and 2i + 1 of a batch are partners. Batches are shuffled, so a neighbour is as good as any
partner, and as devices have even shares, none has to ask another for a picture. The weight and the
rectangle are one for the whole batch, drawn from the step's key: the same on every device.
"""

import jax
import jax.numpy as jnp

from resflax.data.augmentations.erasing import inside
from resflax.declarations.augmentation import Augmentation

Array = jax.Array


def partners(batch: Array) -> Array:
    """(B, ...) with places 2i and 2i + 1 exchanged; B is even."""
    pairs = batch.reshape(-1, 2, *batch.shape[1:])
    return pairs[:, ::-1].reshape(batch.shape)


def mix(images: Array, key: Array, augmentation: Augmentation) -> tuple[Array, Array]:
    """Mixes (B, H, W, C) pictures as declared; returns them and the weight () of their own part."""
    _, height, width, _ = images.shape
    mixup, cutmix = augmentation.mixup, augmentation.cutmix
    done_key, kind_key, weight_key, place_key = jax.random.split(key, 4)
    mixed = jax.random.uniform(done_key) < augmentation.mix_probability
    switch = augmentation.mix_switch_probability if mixup else 1.0
    cutting = jax.random.uniform(kind_key) < (switch if cutmix else 0.0)
    alpha = jnp.where(cutting, cutmix or 1.0, mixup or 1.0)
    weight = jnp.where(mixed, jax.random.beta(weight_key, alpha, alpha), 1)
    cut = cutting & rectangle(height, width, weight, place_key)
    others = partners(images)
    pasted = jnp.where(cut, others, images)
    blended = weight * images + (1 - weight) * others
    images = jnp.where(cutting, pasted, blended)
    return images, jnp.where(cutting, 1 - jnp.mean(cut), weight)


def rectangle(height: int, width: int, kept: Array, key: Array) -> Array:
    """(height, width, 1) bool: a rectangle of the picture's form around a random pixel.

    It covers 1 - `kept` of the picture, less what lies outside of it.
    """
    side = jnp.sqrt(1 - kept)
    rows, columns = (jnp.floor(n * side).astype(jnp.int32) for n in (height, width))
    y_key, x_key = jax.random.split(key)
    top = jax.random.randint(y_key, (), 0, height) - rows // 2
    left = jax.random.randint(x_key, (), 0, width) - columns // 2
    return inside(height, width, top, left, rows, columns)


def soft_targets(
    labels: Array, classes: int, weight: Array | None, augmentation: Augmentation
) -> Array:
    """What the network is to say: (B, classes) float32 in 0 to 1.

    Args:
      labels: (B,) int32.
      classes: how many there are.
      weight: of a picture's own label, from `mix`; None: nothing was mixed.
      augmentation: says how labels are smoothed and cut to 0 and 1.
    """
    smoothing = augmentation.label_smoothing
    targets = jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    if weight is not None:
        targets = weight * targets + (1 - weight) * partners(targets)
    if augmentation.target_threshold is not None:
        targets = (targets > augmentation.target_threshold).astype(jnp.float32)
    return targets
