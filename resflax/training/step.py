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

from resflax.data.augmentation import example_keys, normalize, training_pictures
from resflax.data.augmentations.mixing import mix, partners
from resflax.declarations.data import Data
from resflax.training.recipe import PLAIN, Recipe, losses_of
from resflax.training.state import Totals, TrainState, kernel_norms

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
AnyStep = Callable[[TrainState, Any, Any], tuple[TrainState, Array]]
EvaluationStep = Callable[[TrainState, Examples | None, tuple[Batch, Array]], Sums]


def look_up(examples: Examples | None, batch: Batch) -> Examples:
    """The pictures and labels of a batch."""
    if isinstance(batch, Examples):
        return batch
    assert examples is not None, "indices are of a split on the device"
    return Examples(examples.images[batch], examples.labels[batch])


class Outcome(NamedTuple):
    """What a forward pass leaves behind, beside the loss."""

    logits: Array
    """(B, classes) float32."""
    labels: Array
    """(B,) int32: the class each picture shows; of a mixed one, that of its larger part."""
    batch_stats: Any
    """Running averages that have taken in the batch."""


LossOf = Callable[[Any], tuple[Array, Outcome]]
"""Of parameters: the mean loss, and the rest."""

# Numbers of a step's draws for whole batches, above all places of examples.
_BATCH = 2**31


def loss_of(
    module: nn.Module,
    data: Data,
    state: TrainState,
    examples: Examples | None,
    batch: Batch,
    recipe: Recipe = PLAIN,
    part: Array | int = 0,
) -> LossOf:
    """The loss of a replica's share of the step that follows `state`, as a function of parameters.

    Pictures are augmented and activations dropped as `state` decides. With gradient accumulation
    `batch` is one micro-batch, number `part`.
    """
    augmentation, parts = recipe.augmentation, recipe.gradient_accumulation
    augmentation_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    images, labels = look_up(examples, batch)
    share = len(labels)
    first = jax.lax.axis_index(AXIS) * share
    if parts > 1:
        first = first * parts + part
        dropout_key = jax.random.fold_in(dropout_key, part)
    keys = example_keys(augmentation_key, first, share, parts)
    images = training_pictures(images, keys, state.normalization, data, augmentation)
    shown, weight = labels, None
    if augmentation.mixes:
        number = jnp.uint32(_BATCH) + jnp.uint32(part)
        images, weight = mix(images, jax.random.fold_in(augmentation_key, number), augmentation)
        shown = jnp.where(weight < 0.5, partners(labels), labels)

    def loss(params: Any) -> tuple[Array, Outcome]:
        logits, updates = module.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        losses = losses_of(logits, labels, weight, recipe)
        return jnp.mean(losses), Outcome(logits, shown, updates["batch_stats"])

    return loss


def micro_batches(share: Batch, parts: int) -> Any:
    """A replica's share (B, ...) as (parts, B / parts, ...): every parts-th example is together.

    So a micro-batch has the same examples on any number of devices.
    """

    def split(array: Any) -> Array:
        return jnp.moveaxis(jnp.reshape(array, (-1, parts, *array.shape[1:])), 1, 0)

    return jax.tree.map(split, share)


def each_micro_batch(share: Batch, parts: int) -> list[Any]:
    """`micro_batches`, one by one."""
    whole = micro_batches(share, parts)
    return [jax.tree.map(lambda array, part=part: array[part], whole) for part in range(parts)]


def whole_loss_of(
    module: nn.Module,
    data: Data,
    state: TrainState,
    examples: Examples | None,
    batch: Batch,
    recipe: Recipe,
) -> LossOf:
    """`loss_of` for a whole share: the mean over its micro-batches, one after another."""
    parts = recipe.gradient_accumulation
    losses = [
        loss_of(module, data, state, examples, batch, recipe, part)
        for part, batch in enumerate(each_micro_batch(batch, parts))
    ]

    def loss(params: Any) -> tuple[Array, Outcome]:
        found, outcomes = zip(*(one(params) for one in losses), strict=True)
        return sum(found[1:], found[0]) / parts, outcomes[-1]

    return loss


class Gradients(NamedTuple):
    """What a replica's share teaches."""

    loss: Array
    """() float32: mean."""
    wrong: Array
    """() int32: pictures classified wrongly."""
    batch_stats: Any
    """Running averages that have taken in the share."""
    gradients: Any
    """Of the mean loss."""


def gradients_of(
    module: nn.Module,
    data: Data,
    state: TrainState,
    examples: Examples | None,
    batch: Batch,
    recipe: Recipe,
) -> Gradients:
    """Loss and gradients of a replica's share, micro-batch by micro-batch if it has several."""

    def learn(batch_stats: Any, batch: Batch, part: Array | int) -> Gradients:
        before = state.replace(batch_stats=batch_stats)
        function = loss_of(module, data, before, examples, batch, recipe, part)
        (loss, outcome), gradients = jax.value_and_grad(function, has_aux=True)(state.params)
        wrong = jnp.sum(rank(outcome.logits, outcome.labels) > 0)
        return Gradients(loss, wrong, outcome.batch_stats, gradients)

    parts = recipe.gradient_accumulation
    if parts == 1:
        return learn(state.batch_stats, batch, 0)

    def add(sums: Gradients, micro_batch: tuple[Any, Array]) -> tuple[Gradients, None]:
        found = learn(sums.batch_stats, *micro_batch)
        gradients = jax.tree.map(jnp.add, sums.gradients, found.gradients)
        return Gradients(
            sums.loss + found.loss, sums.wrong + found.wrong, found.batch_stats, gradients
        ), None

    nothing = Gradients(
        jnp.zeros(()),
        jnp.zeros((), jnp.int32),
        state.batch_stats,
        jax.tree.map(jnp.zeros_like, state.params),
    )
    batches = micro_batches(batch, parts), jnp.arange(parts)
    sums, _ = jax.lax.scan(add, nothing, batches)
    mean = jax.tree.map(lambda gradient: gradient / parts, sums.gradients)
    return sums._replace(loss=sums.loss / parts, gradients=mean)


def train_step(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    data: Data,
    recipe: Recipe = PLAIN,
) -> TrainStep:
    """The step (state, examples, batch) -> (state, mean loss of the global batch).

    If that loss or the gradient's norm is not finite, the step changes nothing but marks the state
    as failed; neither does any step after it. Then the loss it returns is NaN.
    """

    def step(
        state: TrainState, examples: Examples | None, batch: Batch
    ) -> tuple[TrainState, Array]:
        found = gradients_of(module, data, state, examples, batch, recipe)
        # Shares are equal, so the mean of means is the mean. Where each device normalises with
        # its own statistics, the running averages are the mean of theirs.
        loss, batch_stats, gradients = jax.lax.pmean(
            (found.loss, found.batch_stats, found.gradients), AXIS
        )
        wrong = jax.lax.psum(found.wrong, AXIS)
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
        if recipe.ema_decay is not None:
            average = optax.incremental_update(
                stepped.variables(), state.average, 1 - recipe.ema_decay
            )
            stepped = stepped.replace(average=average)
        failed = state.failed | ~(jnp.isfinite(loss) & jnp.isfinite(norm))
        state = jax.tree.map(lambda new, old: jnp.where(failed, old, new), stepped, state)
        return state.replace(failed=failed), jnp.where(failed, jnp.nan, loss)

    return step


def many_steps(step: AnyStep) -> AnyStep:
    """Steps in a row without the host: (state, examples, batches (B, n)) -> (state, last loss).

    Column i of `batches` has the examples of step i; columns of -1 at the end are no steps, so that
    one program does for any number up to n. A batch of pictures is one step. Batches of a group are
    (B, n, members), and a step is one as long as any member makes it.
    """

    def steps(state: TrainState, examples: Any, batches: Batch) -> tuple[TrainState, Array]:
        if isinstance(batches, Examples):
            return step(state, examples, batches)
        if batches.shape[1] == 1:
            return step(state, examples, batches[:, 0])
        count = jnp.sum(jnp.any(batches[0].reshape(batches.shape[1], -1) >= 0, axis=-1))

        def body(i: Array, carry: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
            return step(carry[0], examples, batches[:, i])

        return jax.lax.fori_loop(0, count, body, (state, jnp.zeros(batches.shape[2:], jnp.float32)))

    return steps


def evaluation_step(module: nn.Module) -> EvaluationStep:
    """The step (state, examples, (batch, weights (B,) 0 or 1)) -> sums over all devices."""

    def step(state: TrainState, examples: Examples | None, chosen: tuple[Batch, Array]) -> Sums:
        batch, weights = chosen
        images, labels = look_up(examples, batch)
        images = normalize(images, state.normalization)
        logits: Any = module.apply(state.evaluated(), images, train=False)
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
