"""Every example comes exactly once an epoch, for any batch size and from any step."""

import numpy as np
from declared_experiments import experiment
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax.feeding.order import ExampleOrder
from resflax.feeding.resident import evaluation_batches

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=100)
@given(examples=sizes, batch_size=sizes, seed=seeds)
def test_every_epoch_has_every_example_once(examples: int, batch_size: int, seed: int):
    order = ExampleOrder(examples, batch_size, seed)
    epochs = 3
    batches = [order.batch(step) for step in range(-(-epochs * examples // batch_size))]
    forms = {(batch.shape, batch.dtype) for batch in batches}
    assert forms == {((batch_size,), np.dtype(np.int32))}
    orders = np.concatenate(batches)[: epochs * examples].reshape(epochs, examples)
    assert np.array_equal(np.sort(orders), np.tile(np.arange(examples), (epochs, 1)))


@settings(deadline=None, max_examples=100)
@given(
    examples=sizes,
    batch_size=sizes,
    seed=seeds,
    steps=st.lists(st.integers(0, 500), min_size=1, max_size=8),
)
def test_a_batch_depends_on_nothing_but_its_step(examples, batch_size, seed, steps):
    used = ExampleOrder(examples, batch_size, seed)
    for step in steps:
        new = ExampleOrder(examples, batch_size, seed)
        assert np.array_equal(used.batch(step), new.batch(step))


@settings(deadline=None, max_examples=50)
@given(examples=sizes, batch_size=sizes, split=st.integers(1, 5), seed=seeds)
def test_the_order_of_examples_is_the_same_for_every_batch_size(examples, batch_size, split, seed):
    large = ExampleOrder(examples, batch_size * split, seed)
    small = ExampleOrder(examples, batch_size, seed)
    for step in range(3):
        parts = [small.batch(step * split + part) for part in range(split)]
        assert np.array_equal(large.batch(step), np.concatenate(parts))


def test_every_seed_and_epoch_has_another_order():
    orders = [
        ExampleOrder(1000, 1000, seed).batch(epoch) for seed in range(5) for epoch in range(5)
    ]
    assert len({order.tobytes() for order in orders}) == 25
    first = np.array([ExampleOrder(1000, 1000, seed).batch(0)[0] for seed in range(200)])
    # All examples are equally likely to be first. Their mean is 499.5, with a standard deviation of
    # 289 / sqrt(200).
    assert abs(first.mean() - 499.5) < 4 * 289 / 200**0.5


def test_orders_stay_the_same_between_sessions():
    # A continued run has to get the batches that it would have got without the interruption.
    assert ExampleOrder(10, 6, seed=3).batch(0).tolist() == [9, 6, 0, 2, 1, 4]
    assert ExampleOrder(10, 6, seed=3).batch(1_000_000).tolist() == [3, 6, 4, 8, 5, 2]


@settings(deadline=None, max_examples=100)
@given(examples=st.integers(1, 10**6), batch_size=st.integers(1, 10**4), epochs=st.integers(1, 300))
def test_steps_make_at_least_the_epochs_with_no_step_too_many(examples, batch_size, epochs):
    order = ExampleOrder(examples, batch_size, 0)
    declared = experiment(steps=None, epochs=epochs, batch_size=batch_size)
    steps = declared.count_steps(examples)
    assert (steps - 1) * batch_size < epochs * examples <= steps * batch_size
    assert order.epoch(steps) >= epochs > order.epoch(steps - 1)


@settings(deadline=None, max_examples=100)
@given(examples=st.integers(1, 300), batch_size=sizes)
def test_evaluation_covers_each_example_once(examples: int, batch_size: int):
    batches = evaluation_batches(examples, batch_size)
    shapes = {(indices.shape, weights.shape) for indices, weights in batches}
    assert shapes == {((batch_size,), (batch_size,))}
    dtypes = {(indices.dtype, weights.dtype) for indices, weights in batches}
    assert dtypes == {(np.dtype(np.int32), np.dtype(np.float32))}
    indices = np.concatenate([indices for indices, _ in batches])
    weights = np.concatenate([weights for _, weights in batches])
    assert set(weights.tolist()) <= {0.0, 1.0}
    assert np.array_equal(indices[weights == 1], np.arange(examples))
    assert indices.min() >= 0  # indices of weight 0 are valid, too
    assert indices.max() < examples
    assert len(batches) == -(-examples // batch_size)
