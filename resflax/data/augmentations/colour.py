"""Colour jitter and lighting, of fb.resnet.torch, on one picture in 0 to 255.

As there, results are not cut to 0 to 255.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from resflax.declarations.augmentation import Augmentation

Array = jax.Array

GRAY = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R 601)."""

# Of the colours of ImageNet's training pictures in 0 to 1 (fb.resnet.torch, datasets/imagenet.lua);
# a column is an eigenvector.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045], np.float32)
EIGENVECTORS = np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ],
    np.float32,
)

_ORDERS = np.array(list(itertools.permutations(range(3))), np.int32)


def gray(image: Array) -> Array:
    """(H, W, 1 or 3) float32 to (H, W, 1)."""
    return image if image.shape[-1] == 1 else image @ GRAY[:, None]


def jitter(image: Array, key: Array, augmentation: Augmentation) -> Array:
    """Changes brightness, contrast and saturation of (H, W, C) float32, in random order."""
    order_key, amount_key = jax.random.split(key)
    widths = jnp.array(
        [augmentation.brightness, augmentation.contrast, augmentation.saturation], jnp.float32
    )
    amounts = 1 + widths * jax.random.uniform(amount_key, (3,), minval=-1, maxval=1)
    order = jnp.asarray(_ORDERS)[jax.random.randint(order_key, (), 0, len(_ORDERS))]
    for place in range(3):
        image = blend(image, order[place], amounts[order[place]])
    return image


def blend(image: Array, what: Array | int, amount: Array | float) -> Array:
    """x amount + (1 - amount) other: other is black (`what` 0), the mean gray (1), the gray (2)."""
    grayed = gray(image)
    other = jnp.where(what == 0, 0, jnp.where(what == 1, jnp.mean(grayed), grayed))
    return image * amount + (1 - amount) * other


def light(image: Array, key: Array, std: float) -> Array:
    """Adds noise along the principal components of ImageNet's colours to (H, W, 3) float32."""
    amounts = std * jax.random.normal(key, (3,))
    return image + 255 * (EIGENVECTORS * EIGENVALUES) @ amounts
