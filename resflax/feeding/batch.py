"""Batches, and how a compiled step makes one from what the host gives it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array


class Batch(NamedTuple):
    """Images and labels of a batch, or of one replica's share of it."""

    images: Array | np.ndarray
    """(B, H, W, C) uint8."""
    labels: Array | np.ndarray
    """(B,) int32."""


class ResidentSplit(NamedTuple):
    """All images and labels of a split, whole on every device."""

    images: Array
    """(N, H, W, C) uint8."""
    labels: Array
    """(N,) int32."""


Gather = Callable[[Any, Any], Batch]
"""(what stays on the devices, a replica's share of what the host gives) -> the share of the batch.

The function runs inside compiled steps.
"""


def gather_resident(split: ResidentSplit, indices: Array) -> Batch:
    """The batch whose examples have these indices (B,) int32 in a resident split."""
    return Batch(split.images[indices], split.labels[indices])


def gather_streamed(nothing: None, batch: Batch) -> Batch:
    """The batch as the host gives it, because no streamed data stay on the devices."""
    return batch
