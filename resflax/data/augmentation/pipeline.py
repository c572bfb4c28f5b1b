"""The changes of training images on the device, in the order in which they are made.

What is random for an example depends on the step's key and on the example's place in the global
batch, never on the device that computes it.
"""

import jax
import jax.numpy as jnp

from resflax.data.augmentation.colour import jitter, light
from resflax.data.augmentation.erasing import erase
from resflax.data.augmentation.policies import apply_policy
from resflax.data.normalization import Normalization, normalize
from resflax.declarations.augmentation import Augmentation
from resflax.declarations.data import TFDS, Data

Array = jax.Array


def example_keys(key: Array, first: Array | int, examples: int, every: int = 1) -> Array:
    """One key for each example at places first, first + every, ... of the batch.

    `examples` is the number of examples. The key is derived from `key` and the example's place.
    """
    places = first + jnp.arange(0, examples * every, every)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, places)


def training_images(
    images: Array,
    keys: Array,
    normalization: Normalization,
    data: Data,
    augmentation: Augmentation,
) -> Array:
    """Augments images (B, H, W, C) uint8, each by its own key, and normalises them to float32."""
    images = _change_before_normalization(images, keys, normalization, augmentation)
    images = crop_and_mirror(normalize(images, normalization), keys, data)
    if augmentation.random_erasing:
        erase_each = jax.vmap(lambda image, key: erase(image, key, augmentation.random_erasing))
        images = erase_each(images, _keys_of(keys, 3))
    return images


def _change_before_normalization(
    images: Array, keys: Array, normalization: Normalization, augmentation: Augmentation
) -> Array:
    """Applies the policy and the changes of colour, which come before the normalisation.

    Takes images (B, H, W, C) uint8. Returns uint8, or float32 with the range 0 to 255.
    """
    if augmentation.policy != "none":
        colour = jnp.mean(normalization.mean.reshape(-1, images.shape[-1]), 0)
        fill = jnp.round(jnp.clip(colour, 0, 255)).astype(jnp.uint8)
        apply_to_each = jax.vmap(lambda image, key: apply_policy(image, key, augmentation, fill))
        images = apply_to_each(images, _keys_of(keys, 0))
    if augmentation.brightness or augmentation.contrast or augmentation.saturation:
        jitter_each = jax.vmap(lambda image, key: jitter(image, key, augmentation))
        images = jitter_each(images.astype(jnp.float32), _keys_of(keys, 1))
    if augmentation.lighting:
        light_each = jax.vmap(lambda image, key: light(image, key, augmentation.lighting))
        images = light_each(images.astype(jnp.float32), _keys_of(keys, 2))
    return images


def _keys_of(keys: Array, change: int) -> Array:
    """The examples' keys for one kind of change; `crop_and_mirror` uses `keys` as they are."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, change)


def crop_and_mirror(images: Array, keys: Array, data: Data) -> Array:
    """Crops and mirrors normalised images (B, H, W, C) as declared, each by its own key.

    As in the papers' code, images are padded with zeros after the normalisation, when zero is the
    mean colour.
    """
    bits = jax.vmap(lambda key: jax.random.bits(key, (3,), jnp.uint32))(keys)
    _, height, width, _ = images.shape
    rows = jnp.broadcast_to(jnp.arange(height), (len(images), height))
    columns = jnp.broadcast_to(jnp.arange(width), (len(images), width))
    if data.flip:
        mirrored = (bits[:, 2:] & 1).astype(bool)
        columns = jnp.where(mirrored, columns[:, ::-1], columns)
    padding = data.crop_padding if isinstance(data, TFDS) else 0
    if padding:
        # The remainder of 32 random bits favours some of the 2p + 1 shifts, but hardly at all.
        shift = (bits[:, :2] % (2 * padding + 1)).astype(jnp.int32) - padding
        rows, columns = rows + shift[:, :1], columns + shift[:, 1:]
    elif not data.flip:
        return images
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    cropped = jax.vmap(lambda image, r, c: image[r[:, None], c[None, :]])(
        images, jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)
    )
    return jnp.where(inside[..., None], cropped, 0)
