"""One step, as one replica sees it: its share of the batch, and the axis "data" to the others.

`training.devices` runs these functions on all devices. Nothing here depends on how many.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from resflax.data.augmentation import augment, example_keys, normalize
from resflax.declarations.data import TFDS
from resflax.training.state import Totals, TrainState

Array = jax.Array

AXIS = "data"


class Examples(NamedTuple):
    """A whole split on the device, the same on every device."""

    images: Array
    """(N, H, W, C) uint8."""
    labels: Array
    """(N,) int32."""


class Sums(NamedTuple):
    """What an evaluation adds up over examples, each () and exact in count."""

    loss: Array
    """float32: summed cross-entropy."""
    wrong: Array
    """int32: examples whose first guess is wrong."""
    wrong_of_five: Array
    """int32: examples not among the first five guesses."""


TrainStep = Callable[[TrainState, Examples, Array], tuple[TrainState, Array]]
AnyStep = Callable[[TrainState, Any, Array], tuple[TrainState, Array]]
EvaluationStep = Callable[[TrainState, Examples, tuple[Array, Array]], Sums]


LossOf = Callable[[Any], tuple[Array, tuple[Array, Any]]]
"""Of parameters: the mean loss, and the logits and new batch statistics."""


def loss_of(
    module: nn.Module, data: TFDS, state: TrainState, examples: Examples, indices: Array
) -> LossOf:
    """The loss of a replica's share of the step that follows `state`, as a function of parameters.

    Pictures are augmented and activations dropped as `state` decides.
    """
    augmentation_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    share = len(indices)
    keys = example_keys(augmentation_key, jax.lax.axis_index(AXIS) * share, share)
    images = augment(normalize(examples.images[indices], state.normalization), keys, data)

    def loss(params: Any) -> tuple[Array, tuple[Array, Any]]:
        logits, updates = module.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, examples.labels[indices])
        return jnp.mean(losses), (logits, updates["batch_stats"])

    return loss


def train_step(module: nn.Module, optimizer: optax.GradientTransformation, data: TFDS) -> TrainStep:
    """The step (state, examples, indices (B,)) -> (state, mean loss of the global batch).

    If that loss or the gradient's norm is not finite, the step changes nothing but marks the state
    as failed; neither does any step after it. Then the loss it returns is NaN.
    """

    def step(state: TrainState, examples: Examples, indices: Array) -> tuple[TrainState, Array]:
        loss_function = loss_of(module, data, state, examples, indices)
        (loss, (logits, batch_stats)), gradients = jax.value_and_grad(loss_function, has_aux=True)(
            state.params
        )
        # Shares are equal, so the mean of means is the mean. Where each device normalises with
        # its own statistics, the running averages are the mean of theirs.
        loss, batch_stats, gradients = jax.lax.pmean((loss, batch_stats, gradients), AXIS)
        wrong = jax.lax.psum(jnp.sum(rank(logits, examples.labels[indices]) > 0), AXIS)
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


def many_steps(step: AnyStep) -> AnyStep:
    """Steps in a row without the host: (state, examples, batches (B, n)) -> (state, last loss).

    Column i of `batches` has the examples of step i; columns of -1 at the end are no steps, so that
    one program does for any number up to n. Batches of a group are (B, n, members), and a step is
    one as long as any member makes it.
    """

    def steps(state: TrainState, examples: Any, batches: Array) -> tuple[TrainState, Array]:
        if batches.shape[1] == 1:
            return step(state, examples, batches[:, 0])
        count = jnp.sum(jnp.any(batches[0].reshape(batches.shape[1], -1) >= 0, axis=-1))

        def body(i: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            return step(carry[0], examples, batches[:, i])

        return jax.lax.fori_loop(0, count, body, (state, jnp.zeros(batches.shape[2:], jnp.float32)))

    return steps


def evaluation_step(module: nn.Module) -> EvaluationStep:
    """The step (state, examples, (indices (B,), weights (B,) 0 or 1)) -> sums over all devices."""

    def step(state: TrainState, examples: Examples, chosen: tuple[Array, Array]) -> Sums:
        indices, weights = chosen
        images = normalize(examples.images[indices], state.normalization)
        labels = examples.labels[indices]
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits: Any = module.apply(variables, images, train=False)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        place, counted = rank(logits, labels), weights > 0
        sums = Sums(
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
