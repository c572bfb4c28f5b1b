"""Optimizers and learning-rate schedules as declarations."""

from dataclasses import dataclass
from typing import Literal

from resflax.declarations.checks import check_types, refuse

Warmup = Literal["constant", "linear"]
NoWeightDecay = Literal["none", "norm", "norm_and_bias"]


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, weight decay added to the gradient.

    `g += weight_decay * p; v = momentum * v + g; p -= learning_rate * v` for each parameter.
    """

    learning_rate: float = 0.1
    """Peak learning rate; the schedule scales it."""

    momentum: float = 0.9
    """Momentum, without dampening."""

    nesterov: bool = False
    """Nesterov momentum (Huang et al. 2017)."""

    weight_decay: float = 1e-4
    """L2 coefficient."""

    no_weight_decay: NoWeightDecay = "none"
    """Parameters without weight decay. none: all have it (fb.resnet.torch, the DenseNet authors'
    code); norm: not batch norm's scales and biases (Goyal et al. 2017, section 5.1);
    norm_and_bias: nor any other bias (timm)."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        _check_optimizer(self)
        if not 0 <= self.momentum < 1:
            refuse(self, "momentum", "it must be at least 0 and below 1")
        if self.nesterov and self.momentum == 0:
            refuse(self, "nesterov", "it needs a momentum above 0")


@dataclass(frozen=True)
class LARS:
    """SGD whose steps are scaled layer by layer (You et al. 2017, arXiv 1708.03888, Algorithm 1).

    For each parameter array, `g += weight_decay * p; g *= trust_coefficient * |p| / |g|;
    v = momentum * v + learning_rate * g; p -= v`; parameters without weight decay are not scaled.
    """

    learning_rate: float
    """Peak learning rate; the schedule scales it."""

    momentum: float = 0.9
    """Momentum, without dampening."""

    weight_decay: float = 1e-4
    """L2 coefficient."""

    trust_coefficient: float = 0.001
    """Of |p| / |g|: the paper's eta."""

    no_weight_decay: NoWeightDecay = "norm_and_bias"
    """As in `SGD`."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        _check_optimizer(self)
        if not 0 <= self.momentum < 1:
            refuse(self, "momentum", "it must be at least 0 and below 1")
        if self.trust_coefficient <= 0:
            refuse(self, "trust_coefficient", "it must be above 0")


@dataclass(frozen=True)
class AdamW:
    """Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019).

    `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; u = m' / (sqrt(v') + epsilon), m' and v'
    without their bias; p -= learning_rate * (u + weight_decay * p)`. Without weight decay it is
    Adam.
    """

    learning_rate: float = 1e-3
    """Peak learning rate; the schedule scales it."""

    b1: float = 0.9
    """Decay of the mean gradient."""

    b2: float = 0.999
    """Decay of the mean squared gradient."""

    epsilon: float = 1e-8
    """Added to the root."""

    weight_decay: float = 0.01
    """Coefficient; a step's decay is it times the learning rate."""

    no_weight_decay: NoWeightDecay = "norm_and_bias"
    """As in `SGD`."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        _check_optimizer(self)
        _check_adam(self)


@dataclass(frozen=True)
class LAMB:
    """Adam whose steps are scaled layer by layer (You et al. 2020, arXiv 1904.00962, Algorithm 2).

    `u` of AdamW plus `weight_decay * p`, for each parameter array scaled by |p| / |u|; parameters
    without weight decay are not scaled (apex, timm).
    """

    learning_rate: float
    """Peak learning rate; the schedule scales it."""

    b1: float = 0.9
    """Decay of the mean gradient."""

    b2: float = 0.999
    """Decay of the mean squared gradient."""

    epsilon: float = 1e-6
    """Added to the root."""

    weight_decay: float = 0.02
    """Coefficient."""

    no_weight_decay: NoWeightDecay = "norm_and_bias"
    """As in `SGD`."""

    max_gradient_norm: float | None = 1.0
    """Gradients whose norm over all parameters is larger are scaled to it first (apex, timm: 1).
    None: never."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        _check_optimizer(self)
        _check_adam(self)
        if self.max_gradient_norm is not None and self.max_gradient_norm <= 0:
            refuse(self, "max_gradient_norm", "it must be above 0, or None")


def _check_optimizer(optimizer: SGD | LARS | AdamW | LAMB) -> None:
    if optimizer.learning_rate <= 0:
        refuse(optimizer, "learning_rate", "it must be above 0")
    if optimizer.weight_decay < 0:
        refuse(optimizer, "weight_decay", "it must be at least 0")


def _check_adam(optimizer: AdamW | LAMB) -> None:
    for field in ("b1", "b2"):
        if not 0 <= getattr(optimizer, field) < 1:
            refuse(optimizer, field, "it must be at least 0 and below 1")
    if optimizer.epsilon <= 0:
        refuse(optimizer, "epsilon", "it must be above 0")


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


@dataclass(frozen=True)
class Polynomial:
    """From the peak learning rate to `final_learning_rate` past the last step, as a power.

    `final + (peak - final) * (1 - t) ** power` where t goes from 0 to 1 behind the warm-up.
    """

    power: float = 1.0
    """1: a straight line; 2: You et al. 2017, for LARS."""

    final_learning_rate: float = 0.0
    """Learning rate at the end."""

    warmup_steps: int = 0
    """Steps of warm-up at the start; the rest of the training is as above."""

    warmup_learning_rate: float = 0.0
    """Learning rate of (constant) or at the start of (linear) the warm-up."""

    warmup: Warmup = "linear"
    """A linear rise, or constant and then a jump."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        if self.power <= 0:
            refuse(self, "power", "it must be above 0")
        if self.final_learning_rate < 0:
            refuse(self, "final_learning_rate", "it must be at least 0")
        _check_warmup(self)


def _check_warmup(schedule: StepDecay | Cosine | Polynomial) -> None:
    if not 0 <= schedule.warmup_steps < 2**31:
        refuse(schedule, "warmup_steps", "it must be at least 0 and below 2**31")
    if schedule.warmup_learning_rate < 0:
        refuse(schedule, "warmup_learning_rate", "it must be at least 0")


Optimizer = SGD | LARS | AdamW | LAMB

ARGUMENTS = ("learning_rate", "momentum", "weight_decay")
"""Fields of an optimizer that do not change the program of a step, but only numbers in it; a
momentum of 0 is another program than any other."""

Schedule = StepDecay | Cosine | Polynomial
