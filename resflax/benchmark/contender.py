"""What is timed: a training step of one network in one implementation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from resflax.declarations.models import Model

Precision = Literal["float32", "bfloat16"]

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 1e-4
"""Of everyone's SGD."""


@dataclass(frozen=True)
class Case:
    """A network, and what it is fed."""

    name: str
    """For the table."""
    model: Model
    image_shape: tuple[int, int, int]
    """(H, W, C)."""
    num_classes: int
    batch_size: int
    precision: Precision


@dataclass(frozen=True)
class Contender:
    """An implementation of a case, compiled and warm."""

    name: str
    """Such as resflax, naive, torch."""
    steps: Callable[[int], None]
    """Does so many training steps, and returns when the device has done them."""
    compile_seconds: float
    """From the network's declaration to the end of the first step."""
    memory_bytes: Callable[[], int | None]
    """Peak, without the pictures of the data set; None where it is not known."""
