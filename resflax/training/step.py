"""Training steps, written for one replica, which has a share of the batch.

`devices.parallel` runs these functions on all devices. They communicate over an axis, and do not
depend on the number of devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from resflax.devices.parallel import AXIS
from resflax.feeding.batch import Batch
from resflax.training.measurement import rank
from resflax.training.objective import Objective, loss_of, split_micro_batches
from resflax.training.state import Totals, TrainState, kernel_norms

Array = jax.Array

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Array]]
"""(state, a replica's share of the batch) -> (state, mean loss of the global batch)."""


class ShareResult(NamedTuple):
    """Loss and gradients of a replica's share of the batch."""

    loss: Array
    """() float32: mean loss over the share."""
    wrong: Array
    """() int32: number of images that were classified wrongly."""
    batch_stats: Any
    """Running averages of batch norm after the share was processed."""
    gradients: Any
    """Gradients of the loss, in a tree like the parameters."""


def gradients_of(objective: Objective, state: TrainState, share: Batch) -> ShareResult:
    """Loss and gradients of a replica's share, computed one micro-batch at a time."""

    def micro_batch_result(batch_stats: Any, batch: Batch, number: Array | int) -> ShareResult:
        before = state.replace(batch_stats=batch_stats)
        loss_function = loss_of(objective, before, batch, number)
        (loss, forward), gradients = jax.value_and_grad(loss_function, has_aux=True)(state.params)
        wrong = jnp.sum(rank(forward.logits, forward.labels) > 0)
        return ShareResult(loss, wrong, forward.batch_stats, gradients)

    count = objective.gradient_accumulation
    if count == 1:
        return micro_batch_result(state.batch_stats, share, 0)

    def add(sums: ShareResult, batch_and_number: tuple[Batch, Array]) -> tuple[ShareResult, None]:
        new = micro_batch_result(sums.batch_stats, *batch_and_number)
        gradients = jax.tree.map(jnp.add, sums.gradients, new.gradients)
        return ShareResult(
            sums.loss + new.loss, sums.wrong + new.wrong, new.batch_stats, gradients
        ), None

    zero = ShareResult(
        jnp.zeros(()),
        jnp.zeros((), jnp.int32),
        state.batch_stats,
        jax.tree.map(jnp.zeros_like, state.params),
    )
    sums, _ = jax.lax.scan(add, zero, (split_micro_batches(share, count), jnp.arange(count)))
    mean = jax.tree.map(lambda gradient: gradient / count, sums.gradients)
    return sums._replace(loss=sums.loss / count, gradients=mean)


def train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    ema_decay: float | None = None,
) -> TrainStep:
    """Makes the training step of an objective.

    If the loss or the gradient's norm is not finite, the step only marks the state as failed and
    returns NaN as the loss. Later steps leave a failed state as it is and return NaN too. The norms
    in the state's totals are those of the mean gradient over all devices and micro-batches, before
    it is clipped and before weight decay.

    Args:
      objective: the objective that is minimised.
      optimizer: the optimizer, whose state is part of the training state.
      ema_decay: decay of the moving average of weights and batch statistics; None: no average.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Array]:
        local = gradients_of(objective, state, batch)
        # Shares are equal in size, so the mean of means is the mean. Where each device normalises
        # with its own statistics, the running averages are averaged over the devices.
        loss, batch_stats, gradients = jax.lax.pmean(
            (local.loss, local.batch_stats, local.gradients), AXIS
        )
        wrong = jax.lax.psum(local.wrong, AXIS)
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
                kernel_gradient_norms=optax.tree.add(
                    totals.kernel_gradient_norms, kernel_norms(gradients)
                ),
            ),
        )
        if ema_decay is not None:
            average = optax.incremental_update(stepped.variables(), state.average, 1 - ema_decay)
            stepped = stepped.replace(average=average)
        failed = state.failed | ~(jnp.isfinite(loss) & jnp.isfinite(norm))
        state = jax.tree.map(lambda new, old: jnp.where(failed, old, new), stepped, state)
        return state.replace(failed=failed), jnp.where(failed, jnp.nan, loss)

    return step
