"""One step, as one replica sees it: its share of the batch, and the axis "data" to the others.

`training.devices` runs these functions on all devices. Nothing here depends on how many.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from resflax.data.augmentation import augment, example_keys, normalize
from resflax.declarations.data import Data
from resflax.training.state import Totals, TrainState

Array = jax.Array

AXIS = "data"


class Examples(NamedTuple):
    """Pictures and labels: a whole split, the same on every device, or a batch."""

    images: Array
    """(N, H, W, C) uint8."""
    labels: Array
    """(N,) int32."""


class Sums(NamedTuple):
    """What an evaluation adds up over examples, each () and exact in count."""

    examples: Array
    """int32: examples that count."""
    loss: Array
    """float32: summed cross-entropy."""
    wrong: Array
    """int32: examples whose first guess is wrong."""
    wrong_of_five: Array
    """int32: examples not among the first five guesses."""


Batch = Array | np.ndarray | Examples
"""Indices (B,) int32 of examples that are on the device, or the batch's own pictures and labels."""

TrainStep = Callable[[TrainState, Examples | None, Batch], tuple[TrainState, Array]]
EvaluationStep = Callable[[TrainState, Examples | None, tuple[Batch, Array]], Sums]


def look_up(examples: Examples | None, batch: Batch) -> Examples:
    """The pictures and labels of a batch."""
    if isinstance(batch, Examples):
        return batch
    assert examples is not None, "indices are of a split on the device"
    return Examples(examples.images[batch], examples.labels[batch])


LossOf = Callable[[Any], tuple[Array, tuple[Array, Any]]]
"""Of parameters: the mean loss, and the logits and new batch statistics."""


def loss_of(
    module: nn.Module, data: Data, state: TrainState, examples: Examples | None, batch: Batch
) -> LossOf:
    """The loss of a replica's share of the step that follows `state`, as a function of parameters.

    Pictures are augmented and activations dropped as `state` decides.
    """
    augmentation_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    images, labels = look_up(examples, batch)
    share = len(labels)
    keys = example_keys(augmentation_key, jax.lax.axis_index(AXIS) * share, share)
    images = augment(normalize(images, state.normalization), keys, data)

    def loss(params: Any) -> tuple[Array, tuple[Array, Any]]:
        logits, updates = module.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses), (logits, updates["batch_stats"])

    return loss


def train_step(module: nn.Module, optimizer: optax.GradientTransformation, data: Data) -> TrainStep:
    """The step (state, examples, batch) -> (state, mean loss of the global batch).

    If that loss or the gradient's norm is not finite, the step changes nothing but marks the state
    as failed; neither does any step after it. Then the loss it returns is NaN.
    """

    def step(
        state: TrainState, examples: Examples | None, batch: Batch
    ) -> tuple[TrainState, Array]:
        loss_function = loss_of(module, data, state, examples, batch)
        (loss, (logits, batch_stats)), gradients = jax.value_and_grad(loss_function, has_aux=True)(
            state.params
        )
        # Shares are equal, so the mean of means is the mean. Where each device normalises with
        # its own statistics, the running averages are the mean of theirs.
        loss, batch_stats, gradients = jax.lax.pmean((loss, batch_stats, gradients), AXIS)
        wrong = jax.lax.psum(jnp.sum(rank(logits, look_up(examples, batch).labels) > 0), AXIS)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        norm, totals = optax.tree.norm(gradients), state.totals
        stepped = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            totals=Totals(
                loss=totals.loss + loss,
                wrong=totals.wrong + wrong,
                gradient_norm=totals.gradient_norm + norm,
            ),
        )
        failed = state.failed | ~(jnp.isfinite(loss) & jnp.isfinite(norm))
        state = jax.tree.map(lambda new, old: jnp.where(failed, old, new), stepped, state)
        return state.replace(failed=failed), jnp.where(failed, jnp.nan, loss)

    return step


def many_steps(step: TrainStep) -> TrainStep:
    """Steps in a row without the host: (state, examples, batches (B, n)) -> (state, last loss).

    Column i of `batches` has the examples of step i; columns of -1 at the end are no steps, so that
    one program does for any number up to n. A batch of pictures is one step.
    """

    def steps(
        state: TrainState, examples: Examples | None, batches: Batch
    ) -> tuple[TrainState, Array]:
        if isinstance(batches, Examples):
            return step(state, examples, batches)
        if batches.shape[1] == 1:
            return step(state, examples, batches[:, 0])
        count = jnp.sum(batches[0] >= 0)

        def body(i: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            return step(carry[0], examples, batches[:, i])

        return jax.lax.fori_loop(0, count, body, (state, jnp.zeros((), jnp.float32)))

    return steps


def evaluation_step(module: nn.Module) -> EvaluationStep:
    """The step (state, examples, (batch, weights (B,) 0 or 1)) -> sums over all devices."""

    def step(state: TrainState, examples: Examples | None, chosen: tuple[Batch, Array]) -> Sums:
        batch, weights = chosen
        images, labels = look_up(examples, batch)
        images = normalize(images, state.normalization)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits: Any = module.apply(variables, images, train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        place, counted = rank(logits, labels), weights > 0
        sums = Sums(
            examples=jnp.sum(counted),
            loss=jnp.sum(jnp.where(counted, losses, 0)),
            wrong=jnp.sum(counted & (place >= 1)),
            wrong_of_five=jnp.sum(counted & (place >= 5)),
        )
        return jax.lax.psum(sums, AXIS)

    return step


def rank(logits: Array, labels: Array) -> Array:
    """How many classes (B,) int32 stand before the true one; all of them if a logit is NaN.

    Of equal logits the class with the lower number comes first, as in argmax.
    """
    classes = logits.shape[-1]
    true = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    earlier = jnp.arange(classes) < labels[:, None]
    before = jnp.sum((logits > true) | ((logits == true) & earlier), axis=-1)
    return jnp.where(jnp.any(jnp.isnan(logits), axis=-1), classes, before)
