"""Optimizers and learning-rate schedules as declarations."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from resflax.declarations.checks import added, check_types, refuse

Warmup = Literal["constant", "linear"]
NoWeightDecay = Literal["none", "norm", "norm_and_bias"]


@dataclass(frozen=True)
class _Decayed:
    """The fields that all optimizers have."""

    learning_rate: float
    """Peak learning rate; the schedule scales it."""

    _: KW_ONLY

    weight_decay: float
    """Coefficient of the weight decay."""

    no_weight_decay: NoWeightDecay = "norm_and_bias"
    """Parameters without weight decay. none: all have it (fb.resnet.torch, the DenseNet authors'
    code); norm: batch norm's scales and biases have none (Goyal et al. 2017, section 5.1);
    norm_and_bias: no other bias has it either (timm)."""

    max_gradient_norm: float | None = added(None)
    """Largest norm of a step's gradient over all parameters, before weight decay; a larger gradient
    is first scaled down to it (Pascanu et al. 2013, arXiv 1211.5063). None: gradients are not
    scaled."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        if self.max_gradient_norm is not None and self.max_gradient_norm <= 0:
            refuse(self, "max_gradient_norm", "it must be above 0, or None")
        if self.learning_rate <= 0:
            refuse(self, "learning_rate", "it must be above 0")
        if self.weight_decay < 0:
            refuse(self, "weight_decay", "it must be at least 0")


@dataclass(frozen=True)
class _WithMomentum(_Decayed):
    """The fields that optimizers with momentum have."""

    momentum: float = 0.9
    """Momentum, without dampening."""

    _: KW_ONLY

    weight_decay: float = 1e-4
    """L2 coefficient."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            refuse(self, "momentum", "it must be at least 0 and below 1")


@dataclass(frozen=True)
class _Adaptive(_Decayed):
    """The fields that Adam and its variants have."""

    b1: float = 0.9
    """Decay of the mean gradient."""

    b2: float = 0.999
    """Decay of the mean squared gradient."""

    epsilon: float = 1e-8
    """Constant that is added to the square root of the mean squared gradient."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        super().__post_init__()
        for field in ("b1", "b2"):
            if not 0 <= getattr(self, field) < 1:
                refuse(self, field, "it must be at least 0 and below 1")
        if self.epsilon <= 0:
            refuse(self, "epsilon", "it must be above 0")


@dataclass(frozen=True)
class SGD(_WithMomentum):
    """Stochastic gradient descent with momentum; weight decay is added to the gradient.

    `g += weight_decay * p; v = momentum * v + g; p -= learning_rate * v` for each parameter.
    """

    learning_rate: float = 0.1

    nesterov: bool = False
    """Nesterov momentum (Huang et al. 2017)."""

    _: KW_ONLY

    no_weight_decay: NoWeightDecay = "none"

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        super().__post_init__()
        if self.nesterov and self.momentum == 0:
            refuse(self, "nesterov", "it needs a momentum above 0")


@dataclass(frozen=True)
class LARS(_WithMomentum):
    """SGD with steps scaled layer by layer (You et al. 2017, arXiv 1708.03888, Algorithm 1).

    For each parameter array, `g += weight_decay * p; g *= trust_coefficient * |p| / |g|;
    v = momentum * v + learning_rate * g; p -= v`. Parameters without weight decay are not scaled.
    """

    _: KW_ONLY

    trust_coefficient: float = 0.001
    """Coefficient of |p| / |g|: the paper's eta."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        super().__post_init__()
        if self.trust_coefficient <= 0:
            refuse(self, "trust_coefficient", "it must be above 0")


@dataclass(frozen=True)
class AdamW(_Adaptive):
    """Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019).

    `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; u = m' / (sqrt(v') + epsilon)`, where m' and v'
    are the bias-corrected m and v; `p -= learning_rate * (u + weight_decay * p)`. Without weight
    decay it is Adam.
    """

    learning_rate: float = 1e-3

    _: KW_ONLY

    weight_decay: float = 0.01
    """Coefficient of the weight decay; each step multiplies it by the learning rate."""


@dataclass(frozen=True)
class LAMB(_Adaptive):
    """Adam with steps scaled layer by layer (You et al. 2020, arXiv 1904.00962, Algorithm 2).

    The update is `u` of AdamW plus `weight_decay * p`, scaled for each parameter array by
    |p| / |update|. Parameters without weight decay are not scaled (apex, timm).
    """

    epsilon: float = 1e-6

    _: KW_ONLY

    weight_decay: float = 0.02

    max_gradient_norm: float | None = 1.0
    """Largest norm of the gradient over all parameters; a larger gradient is first scaled down to
    it (apex, timm: 1). None: gradients are not scaled."""


@dataclass(frozen=True, kw_only=True)
class _WarmedUp:
    """The fields that all schedules have."""

    warmup_steps: int = 0
    """Steps of warm-up at the start of the training."""

    warmup_learning_rate: float = 0.0
    """Learning rate during a constant warm-up, or at the start of a linear one."""

    warmup: Warmup = "linear"
    """linear: the learning rate rises to the peak; constant: it stays the same, then jumps to the
    peak."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        if not 0 <= self.warmup_steps < 2**31:
            refuse(self, "warmup_steps", "it must be at least 0 and below 2**31")
        if self.warmup_learning_rate < 0:
            refuse(self, "warmup_learning_rate", "it must be at least 0")


@dataclass(frozen=True)
class StepDecay(_WarmedUp):
    """The learning rate is multiplied by `factor` at each boundary.

    Boundaries count from the first step of the training, warm-up included. The kind of warm-up is
    by default constant, as in He et al. 2015, where it was 0.01 for 400 steps, then a jump.
    """

    boundaries: tuple[int, ...] | tuple[float, ...] = ()
    """Where to decay, in order: ints are steps, floats in (0, 1) are fractions of the training."""

    factor: float = 0.1
    """Multiplier at each boundary."""

    _: KW_ONLY

    warmup: Warmup = "constant"

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value, or boundaries out of order."""
        super().__post_init__()
        if any(b >= a for b, a in zip(self.boundaries, self.boundaries[1:], strict=False)):
            refuse(self, "boundaries", "they must increase")
        for boundary in self.boundaries:
            if isinstance(boundary, float) and not 0 < boundary < 1:
                refuse(self, "boundaries", "fractions of the training lie between 0 and 1")
            if isinstance(boundary, int) and not 0 < boundary < 2**31:
                refuse(self, "boundaries", "steps lie between 1 and 2**31 - 1")
        if self.factor <= 0:
            refuse(self, "factor", "it must be above 0")

    def boundary_steps(self, steps: int) -> tuple[int, ...]:
        """The boundaries as steps, for a training of `steps` steps."""
        return tuple(round(b * steps) if isinstance(b, float) else b for b in self.boundaries)


@dataclass(frozen=True)
class Cosine(_WarmedUp):
    """The learning rate follows half a cosine from the peak to the final learning rate.

    The cosine covers the training after the warm-up, and would end one step after the last.
    """

    final_learning_rate: float = 0.0
    """Learning rate at the end of the cosine."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        super().__post_init__()
        if self.final_learning_rate < 0:
            refuse(self, "final_learning_rate", "it must be at least 0")


@dataclass(frozen=True)
class Polynomial(_WarmedUp):
    """The learning rate is `final + (peak - final) * (1 - t) ** power`.

    t rises linearly from 0 after the warm-up to 1, which it would reach one step after the last.
    """

    power: float = 1.0
    """Exponent. 1: a straight line; 2: as in You et al. 2017, for LARS."""

    final_learning_rate: float = 0.0
    """Learning rate at the end of the training."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        super().__post_init__()
        if self.power <= 0:
            refuse(self, "power", "it must be above 0")
        if self.final_learning_rate < 0:
            refuse(self, "final_learning_rate", "it must be at least 0")


Optimizer = SGD | LARS | AdamW | LAMB

TRACED_FIELDS = ("learning_rate", "momentum", "weight_decay")
"""Fields of an optimizer in which runs that train together may differ, because they change only
numbers in the program of a step. A momentum of 0 is the exception, because the program then has no
momentum."""

Schedule = StepDecay | Cosine | Polynomial
