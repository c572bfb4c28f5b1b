"""Optimizers and learning-rate schedules as declarations."""

from dataclasses import dataclass
from typing import Literal

from resflax.declarations.checks import check_types, refuse

Warmup = Literal["constant", "linear"]


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, weight decay added to the gradient.

    `g += weight_decay * p; v = momentum * v + g; p -= learning_rate * v` for every parameter,
    scales and biases included, as fb.resnet.torch and the DenseNet authors' code do.
    """

    learning_rate: float = 0.1
    """Peak learning rate; the schedule scales it."""

    momentum: float = 0.9
    """Momentum, without dampening."""

    nesterov: bool = False
    """Nesterov momentum (Huang et al. 2017)."""

    weight_decay: float = 1e-4
    """L2 coefficient."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        if self.learning_rate <= 0:
            refuse(self, "learning_rate", "it must be above 0")
        if not 0 <= self.momentum < 1:
            refuse(self, "momentum", "it must be at least 0 and below 1")
        if self.nesterov and self.momentum == 0:
            refuse(self, "nesterov", "it needs a momentum above 0")
        if self.weight_decay < 0:
            refuse(self, "weight_decay", "it must be at least 0")


@dataclass(frozen=True)
class StepDecay:
    """The learning rate is multiplied by `factor` at each boundary."""

    boundaries: tuple[int, ...] | tuple[float, ...] = ()
    """Where to decay, in order: ints are steps, floats in (0, 1) are fractions of the training."""

    factor: float = 0.1
    """Multiplier at each boundary."""

    warmup_steps: int = 0
    """Steps of warm-up at the start; boundaries count from step 0 all the same."""

    warmup_learning_rate: float = 0.0
    """Learning rate of (constant) or at the start of (linear) the warm-up."""

    warmup: Warmup = "constant"
    """constant, then a jump (He et al. 2015: 0.01 for 400 steps); or a linear rise."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value, or boundaries out of order."""
        check_types(self)
        if any(b >= a for b, a in zip(self.boundaries, self.boundaries[1:], strict=False)):
            refuse(self, "boundaries", "they must increase")
        for boundary in self.boundaries:
            if isinstance(boundary, float) and not 0 < boundary < 1:
                refuse(self, "boundaries", "fractions of the training lie between 0 and 1")
            if isinstance(boundary, int) and not 0 < boundary < 2**31:
                refuse(self, "boundaries", "steps lie between 1 and 2**31 - 1")
        if self.factor <= 0:
            refuse(self, "factor", "it must be above 0")
        _check_warmup(self)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the peak learning rate to `final_learning_rate` past the last step."""

    final_learning_rate: float = 0.0
    """Learning rate at the end of the cosine."""

    warmup_steps: int = 0
    """Steps of warm-up at the start; the cosine covers the rest."""

    warmup_learning_rate: float = 0.0
    """Learning rate of (constant) or at the start of (linear) the warm-up."""

    warmup: Warmup = "linear"
    """A linear rise, or constant and then a jump."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        if self.final_learning_rate < 0:
            refuse(self, "final_learning_rate", "it must be at least 0")
        _check_warmup(self)


def _check_warmup(schedule: StepDecay | Cosine) -> None:
    if not 0 <= schedule.warmup_steps < 2**31:
        refuse(schedule, "warmup_steps", "it must be at least 0 and below 2**31")
    if schedule.warmup_learning_rate < 0:
        refuse(schedule, "warmup_learning_rate", "it must be at least 0")


Optimizer = SGD

ARGUMENTS = ("learning_rate", "momentum", "weight_decay")
"""Fields of an optimizer that do not change the program of a step, but only numbers in it; a
momentum of 0 is another program than any other."""

Schedule = StepDecay | Cosine
