"""What happens to training pictures on the device, from first to last.

The random part of an example depends on the step's key and the example's place in the global
batch, never on the device that computes it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.augmentations.colour import jitter, light
from resflax.data.augmentations.erasing import erase
from resflax.data.augmentations.policies import apply_policy
from resflax.declarations.augmentation import Augmentation
from resflax.declarations.data import TFDS, Data

Array = jax.Array


class Normalization(NamedTuple):
    """x becomes (x - mean) * scale, for x in 0 to 255."""

    mean: Array
    """(C,) or (H, W, C) float32."""
    scale: Array
    """(C,) float32."""


def fit_normalization(images: np.ndarray, data: TFDS) -> Normalization:
    """Statistics of (N, H, W, C) uint8 training pictures, exact sums in whole numbers."""
    count = len(images)
    if data.normalization == "pixel":
        mean = images.sum(0, dtype=np.int64) / count
        return Normalization(jnp.asarray(mean, jnp.float32), jnp.ones(images.shape[-1]))
    # From a histogram per channel: one pass, no float copy of the whole set.
    histograms = [
        np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])
    ]
    values = np.arange(256)
    means = np.array([np.average(values, weights=h) for h in histograms])
    stds = np.array(
        [
            np.average((values - mean) ** 2, weights=h) ** 0.5
            for mean, h in zip(means, histograms, strict=True)
        ]
    )
    stds[stds == 0] = 1  # a constant channel
    return Normalization(jnp.asarray(means, jnp.float32), jnp.asarray(1 / stds, jnp.float32))


def imagenet_normalization() -> Normalization:
    """The constants that networks for ImageNet share, since Torch: those of RGB in 0 to 1."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return Normalization(
        jnp.asarray(255 * mean, jnp.float32), jnp.asarray(1 / (255 * deviation), jnp.float32)
    )


def no_normalization(image_shape: tuple[int, int, int], data: Data) -> Normalization:
    """One that changes nothing, of the shapes that `fit_normalization` gives."""
    by_pixel = isinstance(data, TFDS) and data.normalization == "pixel"
    shape = image_shape if by_pixel else image_shape[-1:]
    return Normalization(jnp.zeros(shape), jnp.ones(image_shape[-1]))


def normalize(images: Array, normalization: Normalization) -> Array:
    """(B, H, W, C) uint8 to float32."""
    return (images.astype(jnp.float32) - normalization.mean) * normalization.scale


def example_keys(key: Array, first: Array | int, examples: int, every: int = 1) -> Array:
    """A key for each of `examples` examples, at places first, first + every, ... of the batch."""
    places = first + jnp.arange(0, examples * every, every)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, places)


def training_pictures(
    images: Array,
    keys: Array,
    normalization: Normalization,
    data: Data,
    augmentation: Augmentation,
) -> Array:
    """All that is done to each picture by itself: (B, H, W, C) uint8 to float32, by its own key."""
    images = recolour(images, keys, normalization, augmentation)
    images = augment(normalize(images, normalization), keys, data)
    if augmentation.random_erasing:
        each = jax.vmap(lambda image, key: erase(image, key, augmentation.random_erasing))
        images = each(images, _keys_of(keys, 3))
    return images


def recolour(
    images: Array, keys: Array, normalization: Normalization, augmentation: Augmentation
) -> Array:
    """What comes before the normalisation: (B, H, W, C) uint8 to uint8 or float32, 0 to 255."""
    if augmentation.policy != "none":
        colour = jnp.mean(normalization.mean.reshape(-1, images.shape[-1]), 0)
        fill = jnp.round(jnp.clip(colour, 0, 255)).astype(jnp.uint8)
        each = jax.vmap(lambda image, key: apply_policy(image, key, augmentation, fill))
        images = each(images, _keys_of(keys, 0))
    if augmentation.brightness or augmentation.contrast or augmentation.saturation:
        each = jax.vmap(lambda image, key: jitter(image, key, augmentation))
        images = each(images.astype(jnp.float32), _keys_of(keys, 1))
    if augmentation.lighting:
        each = jax.vmap(lambda image, key: light(image, key, augmentation.lighting))
        images = each(images.astype(jnp.float32), _keys_of(keys, 2))
    return images


def _keys_of(keys: Array, use: int) -> Array:
    """Keys of one kind of change; `augment` takes the examples' own."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, use)


def augment(images: Array, keys: Array, data: Data) -> Array:
    """Crops and mirrors (B, H, W, C) normalised pictures, each by its own key.

    Padding is zero behind the normalisation: the mean colour, as in the papers' code.
    """
    draw = jax.vmap(lambda key: jax.random.bits(key, (3,), jnp.uint32))(keys)
    _, height, width, _ = images.shape
    rows = jnp.broadcast_to(jnp.arange(height), (len(images), height))
    columns = jnp.broadcast_to(jnp.arange(width), (len(images), width))
    if data.flip:
        mirrored = (draw[:, 2:] & 1).astype(bool)
        columns = jnp.where(mirrored, columns[:, ::-1], columns)
    padding = data.crop_padding if isinstance(data, TFDS) else 0
    if padding:
        # 2p + 1 places out of 2**32: the bias of the remainder is below one in 10**8.
        shift = (draw[:, :2] % (2 * padding + 1)).astype(jnp.int32) - padding
        rows, columns = rows + shift[:, :1], columns + shift[:, 1:]
    elif not data.flip:
        return images
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    taken = jax.vmap(lambda image, r, c: image[r[:, None], c[None, :]])(
        images, jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    )
    return jnp.where(inside[..., None], taken, 0)
