"""Random erasing of one normalised picture (Zhong et al. 2020), with the ranges of timm."""

import math

import jax
import jax.numpy as jnp

Array = jax.Array

AREA = (0.02, 1 / 3)
"""Least and greatest area of the rectangle, as a share of the picture's area."""
ASPECT = (0.3, 1 / 0.3)
"""Least and greatest ratio of the rectangle's height to its width; its logarithm is uniform."""
TRIES = 10
"""Number of rectangles that are drawn. The first one that is smaller than the picture is erased; if
none is smaller, nothing is erased."""


def erase(image: Array, key: Array, probability: float) -> Array:
    """Sets a random rectangle of a picture (H, W, C) to 0, the mean colour after normalisation.

    This happens with the given probability; otherwise the picture is returned unchanged.
    """
    height, width, _ = image.shape
    chance_key, area_key, aspect_key, corner_key = jax.random.split(key, 4)
    areas = jax.random.uniform(area_key, (TRIES,), minval=AREA[0], maxval=AREA[1]) * height * width
    low, high = map(math.log, ASPECT)
    aspects = jnp.exp(jax.random.uniform(aspect_key, (TRIES,), minval=low, maxval=high))
    heights = jnp.round(jnp.sqrt(areas * aspects)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas / aspects)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    rows, columns = heights[first], widths[first]
    down, right = jax.random.uniform(corner_key, (2,))
    top = jnp.floor(down * (height - rows + 1)).astype(jnp.int32)
    left = jnp.floor(right * (width - columns + 1)).astype(jnp.int32)
    erased = (jax.random.uniform(chance_key) < probability) & jnp.any(fits)
    mask = rectangle_mask(height, width, top, left, rows, columns)
    return jnp.where(erased & mask, 0, image)


def rectangle_mask(
    height: int, width: int, top: Array, left: Array, rows: Array, columns: Array
) -> Array:
    """A mask (height, width, 1) bool, True for the pixels inside a rectangle.

    The rectangle begins at pixel (top, left) and has the given numbers of rows and columns.
    """
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)
