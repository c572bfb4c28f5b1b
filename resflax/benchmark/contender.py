"""The cases that are timed, and the contenders: a case's training step in one implementation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from resflax.declarations.models import Model

Precision = Literal["float32", "bfloat16"]

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 1e-4
"""SGD's settings in every implementation."""


@dataclass(frozen=True)
class Case:
    """A network with the batches that it trains on."""

    name: str
    """The name that tables show."""
    model: Model
    image_shape: tuple[int, int, int]
    """(H, W, C)."""
    num_classes: int
    batch_size: int
    precision: Precision


@dataclass(frozen=True)
class Contender:
    """One implementation of a case, compiled and warmed up."""

    name: str
    """The name of the implementation, such as resflax, naive linen or torch."""
    steps: Callable[[int], None]
    """Does the given number of training steps, and returns when the device has finished them."""
    compile_seconds: float
    """Time from the network's declaration to the end of the first step."""
    memory_bytes: Callable[[], int | None]
    """Returns the peak memory in bytes, without the data set's pictures; None if it is unknown."""
    program_text: Callable[[], str] | None = None
    """Returns the text of the program that XLA compiled; None for other compilers."""
