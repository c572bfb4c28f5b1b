"""Mixup and cutmix, which mix pictures in pairs, and the targets of the mixed pictures.

The examples at places 2i and 2i + 1 of a batch are partners. Batches are shuffled, so
neighbours are as random as any other pairs. Each device has an even number of examples, so no
device needs a picture from another one. The weight and the rectangle are the same for the whole
batch; all devices draw them from the key of the step.
"""

import jax
import jax.numpy as jnp

from resflax.data.augmentation.erasing import rectangle_mask
from resflax.declarations.augmentation import Augmentation

Array = jax.Array


def partners(batch: Array) -> Array:
    """The batch (B, ...) with the examples at places 2i and 2i + 1 exchanged; B must be even."""
    pairs = batch.reshape(-1, 2, *batch.shape[1:])
    return pairs[:, ::-1].reshape(batch.shape)


def mix(images: Array, key: Array, augmentation: Augmentation) -> tuple[Array, Array]:
    """Mixes the pictures of a batch in pairs, by mixup or cutmix as declared.

    Args:
      images: (B, H, W, C) float32.
      key: the random key, which must be the same on all devices.
      augmentation: the declared augmentation.

    Returns:
      The mixed pictures (B, H, W, C), and the weight () float32 of each picture in its mixture. The
      weight of its partner is 1 minus that weight.
    """
    _, height, width, _ = images.shape
    mixup, cutmix = augmentation.mixup, augmentation.cutmix
    mixed_key, switch_key, weight_key, rectangle_key = jax.random.split(key, 4)
    mixed = jax.random.uniform(mixed_key) < augmentation.mix_probability
    switch = augmentation.mix_switch_probability if mixup else 1.0
    cutting = jax.random.uniform(switch_key) < (switch if cutmix else 0.0)
    alpha = jnp.where(cutting, cutmix or 1.0, mixup or 1.0)
    weight = jnp.where(mixed, jax.random.beta(weight_key, alpha, alpha), 1)
    cut = cutting & random_rectangle(height, width, weight, rectangle_key)
    partner_images = partners(images)
    pasted = jnp.where(cut, partner_images, images)
    blended = weight * images + (1 - weight) * partner_images
    images = jnp.where(cutting, pasted, blended)
    return images, jnp.where(cutting, 1 - jnp.mean(cut), weight)


def random_rectangle(height: int, width: int, kept: Array, key: Array) -> Array:
    """A mask (height, width, 1) bool, True in a rectangle around a random pixel.

    The rectangle has the proportions of the picture and the share 1 - `kept` of its area. It is cut
    off at the edges of the picture.
    """
    side = jnp.sqrt(1 - kept)
    rows, columns = (jnp.floor(length * side).astype(jnp.int32) for length in (height, width))
    y_key, x_key = jax.random.split(key)
    top = jax.random.randint(y_key, (), 0, height) - rows // 2
    left = jax.random.randint(x_key, (), 0, width) - columns // 2
    return rectangle_mask(height, width, top, left, rows, columns)


def soft_targets(
    labels: Array, classes: int, weight: Array | None, augmentation: Augmentation
) -> Array:
    """The targets (B, classes) float32 for the network's outputs, between 0 and 1.

    Args:
      labels: (B,) int32.
      classes: number of classes.
      weight: weight () of each picture's own label, from `mix`; None if nothing was mixed.
      augmentation: the declared augmentation: how labels are smoothed, and the threshold, if any,
        above which a target becomes 1 and otherwise 0.
    """
    smoothing = augmentation.label_smoothing
    targets = jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    if weight is not None:
        targets = weight * targets + (1 - weight) * partners(targets)
    if augmentation.target_threshold is not None:
        targets = (targets > augmentation.target_threshold).astype(jnp.float32)
    return targets
