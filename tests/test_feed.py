"""Every example exactly once an epoch, whatever the batch size, wherever a run begins again."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax.data.feed import Order, evaluation_batches

sizes = st.integers(1, 60)
seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=100)
@given(examples=sizes, batch_size=sizes, seed=seeds)
def test_every_epoch_has_every_example_once(examples: int, batch_size: int, seed: int):
    order = Order(examples, batch_size, seed)
    epochs = 3
    batches = [order.batch(step) for step in range(-(-epochs * examples // batch_size))]
    assert {(b.shape, b.dtype) for b in batches} == {((batch_size,), np.dtype(np.int32))}
    row = np.concatenate(batches)[: epochs * examples].reshape(epochs, examples)
    assert np.array_equal(np.sort(row), np.tile(np.arange(examples), (epochs, 1)))


@settings(deadline=None, max_examples=100)
@given(
    examples=sizes,
    batch_size=sizes,
    seed=seeds,
    steps=st.lists(st.integers(0, 500), min_size=1, max_size=8),
)
def test_a_batch_depends_on_nothing_but_its_step(examples, batch_size, seed, steps):
    asked_before = Order(examples, batch_size, seed)
    for step in steps:
        fresh = Order(examples, batch_size, seed)
        assert np.array_equal(asked_before.batch(step), fresh.batch(step))


@settings(deadline=None, max_examples=50)
@given(examples=sizes, batch_size=sizes, split=st.integers(1, 5), seed=seeds)
def test_the_row_of_examples_is_the_same_for_every_batch_size(examples, batch_size, split, seed):
    large, small = Order(examples, batch_size * split, seed), Order(examples, batch_size, seed)
    for step in range(3):
        parts = [small.batch(step * split + part) for part in range(split)]
        assert np.array_equal(large.batch(step), np.concatenate(parts))


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = [Order(1000, 1000, seed).batch(epoch) for seed in range(5) for epoch in range(5)]
    assert len({order.tobytes() for order in orders}) == 25
    places = np.stack([Order(1000, 1000, seed).batch(0) for seed in range(200)])
    # Any example is as likely to be first: mean 499.5, its deviation 289 / sqrt(200).
    assert abs(places[:, 0].mean() - 499.5) < 4 * 289 / 200**0.5


def test_orders_stay_the_same_between_sessions():
    # A continued run sees what it would have seen.
    assert Order(10, 6, seed=3).batch(0).tolist() == [9, 6, 0, 2, 1, 4]
    assert Order(10, 6, seed=3).batch(1_000_000).tolist() == [3, 6, 4, 8, 5, 2]


@settings(deadline=None, max_examples=100)
@given(examples=st.integers(1, 10**6), batch_size=st.integers(1, 10**4), epochs=st.integers(1, 300))
def test_steps_make_at_least_the_epochs_and_not_a_step_more(examples, batch_size, epochs):
    order = Order(examples, batch_size, 0)
    steps = order.steps(epochs)
    assert (steps - 1) * batch_size < epochs * examples <= steps * batch_size
    assert order.epoch(steps) >= epochs > order.epoch(steps - 1)


@settings(deadline=None, max_examples=100)
@given(examples=st.integers(1, 300), batch_size=sizes)
def test_evaluation_covers_each_example_once(examples: int, batch_size: int):
    batches = evaluation_batches(examples, batch_size)
    assert {(i.shape, w.shape) for i, w in batches} == {((batch_size,), (batch_size,))}
    assert {(i.dtype, w.dtype) for i, w in batches} == {(np.dtype(np.int32), np.dtype(np.float32))}
    indices = np.concatenate([indices for indices, _ in batches])
    weights = np.concatenate([weights for _, weights in batches])
    assert set(weights.tolist()) <= {0.0, 1.0}
    assert np.array_equal(indices[weights == 1], np.arange(examples))
    assert indices.min() >= 0  # also those of weight 0 are examples
    assert indices.max() < examples
    assert len(batches) == -(-examples // batch_size)
