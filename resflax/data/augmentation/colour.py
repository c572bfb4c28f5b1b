"""Colour jitter and lighting as in fb.resnet.torch, on one picture with values in 0 to 255.

As in that code, the results are not clipped to the range 0 to 255.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from resflax.declarations.augmentation import Augmentation

Array = jax.Array

GRAY = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in a gray value (ITU-R 601)."""

# Principal components of the colours, in 0 to 1, of ImageNet's training pictures (fb.resnet.torch,
# datasets/imagenet.lua). Each column is an eigenvector.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045], np.float32)
EIGENVECTORS = np.array(
    [
        [-0.5675, 0.7192, 0.4009],
        [-0.5808, -0.0045, -0.8140],
        [-0.5836, -0.6948, 0.4203],
    ],
    np.float32,
)

BLACK, MEAN_GRAY, GRAY_PICTURE = 0, 1, 2
"""The partner that brightness, contrast and saturation blend a picture with, in this order."""

_ORDERS = np.array(list(itertools.permutations(range(3))), np.int32)


def jitter(image: Array, key: Array, augmentation: Augmentation) -> Array:
    """Changes brightness, contrast and saturation of (H, W, C) float32, in a random order."""
    order_key, amount_key = jax.random.split(key)
    widths = jnp.array(
        [augmentation.brightness, augmentation.contrast, augmentation.saturation], jnp.float32
    )
    amounts = 1 + widths * jax.random.uniform(amount_key, (3,), minval=-1, maxval=1)
    order = jnp.asarray(_ORDERS)[jax.random.randint(order_key, (), 0, len(_ORDERS))]
    for number in range(3):
        image = _blend_with(order[number], image, amounts[order[number]])
    return image


def light(image: Array, key: Array, std: float) -> Array:
    """Shifts (H, W, 3) float32 randomly along the principal components of ImageNet's colours."""
    amounts = std * jax.random.normal(key, (3,))
    return image + 255 * (EIGENVECTORS * EIGENVALUES) @ amounts


def _blend_with(partner: Array, image: Array, amount: Array) -> Array:
    """amount * image + (1 - amount) * y, where y is the picture that `partner` names.

    BLACK: zeros; MEAN_GRAY: the mean of the gray picture; GRAY_PICTURE: the gray picture itself.
    """
    gray = image if image.shape[-1] == 1 else image @ GRAY[:, None]
    partner_pixels = jnp.where(
        partner == BLACK, 0, jnp.where(partner == MEAN_GRAY, jnp.mean(gray), gray)
    )
    return image * amount + (1 - amount) * partner_pixels
