"""The objective that training steps minimise: the loss of a network on augmented images."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from resflax.data.augmentation.mixing import mix, partners, soft_targets
from resflax.data.augmentation.pipeline import example_keys, training_images
from resflax.declarations.augmentation import Augmentation
from resflax.declarations.data import Data
from resflax.devices.parallel import AXIS
from resflax.experiment import Experiment
from resflax.feeding.batch import Batch
from resflax.training.state import TrainState

Array = jax.Array


@dataclass(frozen=True)
class Objective:
    """A network, how its training images are augmented, and how its loss is computed."""

    module: nn.Module
    """The network, made by `models.build` with the axis `AXIS`."""
    data: Data
    """The data set, which declares crops and mirroring."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"
    gradient_accumulation: int = 1
    """Number of micro-batches in a step."""

    @classmethod
    def of(cls, experiment: Experiment, module: nn.Module) -> "Objective":
        """The objective that an experiment declares, for a network that was built for it."""
        return cls(
            module,
            experiment.data,
            experiment.augmentation,
            experiment.loss,
            experiment.gradient_accumulation,
        )


class ForwardPass(NamedTuple):
    """The results of a forward pass besides the loss."""

    logits: Array
    """(B, classes) float32."""
    labels: Array
    """(B,) int32: the class that each image shows; for a mixed image, that of its larger part."""
    batch_stats: Any
    """Running averages of batch norm after the batch."""


LossOfParams = Callable[[Any], tuple[Array, ForwardPass]]
"""Parameters -> mean loss () float32, and the rest of the forward pass."""

# The numbers of the keys of whole batches start here, above the places of all examples.
_FIRST_BATCH_KEY = 2**31


def loss_of(
    objective: Objective, state: TrainState, batch: Batch, micro_batch: Array | int = 0
) -> LossOfParams:
    """The loss of a replica's share of the step that follows `state`, as a function of parameters.

    The keys of the state decide how images are augmented and which activations are dropped. With
    gradient accumulation, `batch` is the share of the micro-batch with the given number.
    """
    augmentation, micro_batches = objective.augmentation, objective.gradient_accumulation
    augmentation_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    labels = jnp.asarray(batch.labels)
    share = len(labels)
    first = jax.lax.axis_index(AXIS) * share
    if micro_batches > 1:
        first = first * micro_batches + micro_batch
        dropout_key = jax.random.fold_in(dropout_key, micro_batch)
    keys = example_keys(augmentation_key, first, share, micro_batches)
    images = jnp.asarray(batch.images)
    images = training_images(images, keys, state.normalization, objective.data, augmentation)
    shown, weight = labels, None
    if augmentation.mixes:
        number = jnp.uint32(_FIRST_BATCH_KEY) + jnp.uint32(micro_batch)
        images, weight = mix(images, jax.random.fold_in(augmentation_key, number), augmentation)
        shown = jnp.where(weight < 0.5, partners(labels), labels)

    def loss(params: Any) -> tuple[Array, ForwardPass]:
        logits, updates = objective.module.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        losses = example_losses(objective, logits, labels, weight)
        return jnp.mean(losses), ForwardPass(logits, shown, updates.get("batch_stats", {}))

    return loss


def example_losses(
    objective: Objective, logits: Array, labels: Array, weight: Array | None
) -> Array:
    """The training loss (B,) float32 of each image.

    Args:
      objective: declares which loss is used, and how labels are smoothed.
      logits: (B, classes) float32.
      labels: (B,) int32.
      weight: () float32, the weight of each image's own label, from `mixing.mix`; None if images
        are not mixed.
    """
    if objective.loss == "cross_entropy" and not objective.augmentation.softens:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = soft_targets(labels, logits.shape[-1], weight, objective.augmentation)
    if objective.loss == "cross_entropy":
        return optax.softmax_cross_entropy(logits, targets)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets), -1)


def split_micro_batches(share: Batch, count: int) -> Batch:
    """Splits a replica's share (B, ...) into micro-batches (count, B / count, ...).

    Every count-th example belongs to the same micro-batch, so that a micro-batch has the same
    examples on any number of devices.
    """

    def split(array: Any) -> Array:
        return jnp.moveaxis(jnp.reshape(array, (-1, count, *array.shape[1:])), 1, 0)

    return jax.tree.map(split, share)


def micro_batches_of(objective: Objective, share: Batch) -> list[Batch]:
    """Splits a replica's share of a step into its shares of the micro-batches, in order."""
    count = objective.gradient_accumulation
    stacked = split_micro_batches(share, count)
    return [Batch(stacked.images[i], stacked.labels[i]) for i in range(count)]


def step_loss_of(objective: Objective, state: TrainState, share: Batch) -> LossOfParams:
    """`loss_of` for the whole share of a step: the mean over its micro-batches.

    Other results of the forward pass are those of the last micro-batch.
    """
    losses = [
        loss_of(objective, state, batch, number)
        for number, batch in enumerate(micro_batches_of(objective, share))
    ]

    def loss(params: Any) -> tuple[Array, ForwardPass]:
        values, passes = zip(*(loss(params) for loss in losses), strict=True)
        return sum(values[1:], values[0]) / len(losses), passes[-1]

    return loss
