"""How a step learns, beside its network, data and optimizer; and the losses it has."""

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from resflax.data.augmentations.mixing import soft_targets
from resflax.declarations.augmentation import Augmentation
from resflax.experiment import Experiment

Array = jax.Array


@dataclass(frozen=True)
class Recipe:
    """What a step takes from the experiment's fields of the same names."""

    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    gradient_accumulation: int = 1
    ema_decay: float | None = None

    @classmethod
    def of(cls, experiment: Experiment) -> "Recipe":
        """That of an experiment."""
        return cls(
            experiment.augmentation,
            experiment.loss,
            experiment.gradient_accumulation,
            experiment.ema_decay,
        )


PLAIN = Recipe()
"""Of an experiment that declares nothing of it."""


def losses_of(logits: Array, labels: Array, weight: Array | None, recipe: Recipe) -> Array:
    """The training loss (B,) float32 of each picture; `weight` is that of `mixing.mix`."""
    if recipe.loss == "cross_entropy" and not recipe.augmentation.softens:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = soft_targets(labels, logits.shape[-1], weight, recipe.augmentation)
    if recipe.loss == "cross_entropy":
        return optax.softmax_cross_entropy(logits, targets)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets), -1)
