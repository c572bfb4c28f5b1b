"""Random erasing (Zhong et al. 2020), with timm's ranges, of one normalised picture."""

import math

import jax
import jax.numpy as jnp

Array = jax.Array

AREA = (0.02, 1 / 3)
"""Of the rectangle, as a share of the picture's."""
ASPECT = (0.3, 1 / 0.3)
"""Height over width of the rectangle; its logarithm is uniform."""
TRIES = 10
"""Rectangles drawn until one is smaller than the picture; if none is, nothing is erased."""


def erase(image: Array, key: Array, probability: float) -> Array:
    """Sets a random rectangle of (H, W, C) to 0, the mean colour behind the normalisation."""
    height, width, _ = image.shape
    chance_key, area_key, aspect_key, place_key = jax.random.split(key, 4)
    areas = jax.random.uniform(area_key, (TRIES,), minval=AREA[0], maxval=AREA[1]) * height * width
    low, high = map(math.log, ASPECT)
    aspects = jnp.exp(jax.random.uniform(aspect_key, (TRIES,), minval=low, maxval=high))
    heights = jnp.round(jnp.sqrt(areas * aspects)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas / aspects)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    chosen = jnp.argmax(fits)
    h, w = heights[chosen], widths[chosen]
    tops, lefts = jax.random.uniform(place_key, (2,))
    top = jnp.floor(tops * (height - h + 1)).astype(jnp.int32)
    left = jnp.floor(lefts * (width - w + 1)).astype(jnp.int32)
    erased = (jax.random.uniform(chance_key) < probability) & jnp.any(fits)
    return jnp.where(erased & inside(height, width, top, left, h, w), 0, image)


def inside(height: int, width: int, top: Array, left: Array, rows: Array, columns: Array) -> Array:
    """(height, width, 1) bool: the pixels of a rectangle."""
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    return (y >= top) & (y < top + rows) & (x >= left) & (x < left + columns)
