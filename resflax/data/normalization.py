"""Normalisation, which turns stored pixel values into the inputs of a network."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resflax.declarations.data import TFDS

Array = jax.Array


class Normalization(NamedTuple):
    """The map from a pixel value x, in 0 to 255, to (x - mean) * scale."""

    mean: Array
    """(C,) or (H, W, C) float32."""
    scale: Array
    """(C,) float32."""


def from_colours(mean: tuple[float, ...], std: tuple[float, ...]) -> Normalization:
    """The normalisation (x - mean) / std for x in 0 to 1, with one mean and std per channel."""
    return Normalization(
        jnp.asarray(np.array(mean) * 255, jnp.float32),
        jnp.asarray(1 / (np.array(std) * 255), jnp.float32),
    )


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's statistics for x in 0 to 1, used by torchvision, timm and pytorch_resnet_cifar10."""


def fit_normalization(images: np.ndarray, data: TFDS) -> Normalization:
    """Computes the declared normalisation from training images (N, H, W, C) uint8.

    The statistics are computed from exact integer sums.
    """
    count = len(images)
    if data.normalization == "pixel":
        mean = images.sum(0, dtype=np.int64) / count
        return Normalization(jnp.asarray(mean, jnp.float32), jnp.ones(images.shape[-1]))
    # A histogram per channel takes one pass, and needs no float copy of the whole set.
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


def normalize(images: Array, normalization: Normalization) -> Array:
    """Normalises images (B, H, W, C) uint8 to float32."""
    return (images.astype(jnp.float32) - normalization.mean) * normalization.scale
