"""Random orders and numbers are those of NumPy and grain, and do not change with their versions."""

import hashlib

import jax
import numpy as np
import pytest
from grain.experimental import index_shuffle
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resflax.data.cipher import shuffled
from resflax.data.draws import Doubles, permutation
from resflax.devices.randomness import pinned_randomness

seeds = st.integers(0, 2**32 - 1)
entropies = st.integers(0, 2**100) | st.tuples(st.integers(0, 2**64), st.integers(0, 2**40))


@settings(deadline=None, max_examples=100)
@given(examples=st.integers(0, 3000), entropy=entropies)
@example(examples=2**17, entropy=(0, 0))
@example(examples=50_000, entropy=0)
def test_permutations_are_those_of_numpy(examples: int, entropy: int):
    expected = np.random.default_rng(entropy).permutation(examples)
    ours = permutation(examples, entropy)
    assert ours.dtype == expected.dtype
    assert np.array_equal(ours, expected)


def test_permutations_stay_as_they_are():
    """No generator of NumPy's is asked here, so a new version of it would be noticed."""
    assert permutation(12, (3, 1)).tolist() == [0, 4, 11, 1, 2, 5, 10, 7, 9, 8, 6, 3]
    assert [permutation(n, 7).tolist() for n in (0, 1, 2, 3)] == [[], [0], [0, 1], [0, 2, 1]]
    order = permutation(50_000, 0)
    assert order[:6].tolist() == [25461, 5892, 10377, 28814, 9578, 43565]
    assert hashlib.sha256(order.astype("<i4").tobytes()).hexdigest()[:16] == "5101f22d823393d4"


@given(seed=st.integers(0, 2**128 - 1), counts=st.lists(st.integers(0, 9), max_size=5))
def test_doubles_are_those_of_numpy(seed: int, counts: list[int]):
    ours = Doubles(np.random.Philox(key=seed))
    expected = np.random.Generator(np.random.Philox(key=seed))
    for count in counts:
        assert ours.draw(count) == expected.random(count).tolist()


def test_doubles_stay_as_they_are():
    assert Doubles(np.random.Philox(key=5)).draw(3) == [
        0.7337459554446363,
        0.5905206445727093,
        0.20780894066207112,
    ]


def test_settings_of_jax_do_not_change_what_a_run_draws():
    @pinned_randomness()
    def draw() -> list[float]:
        return jax.random.uniform(jax.random.PRNGKey(3), (3,)).tolist()

    drawn = draw()
    assert drawn == pytest.approx([0.074053, 0.938144, 0.648957], abs=1e-6)
    with jax.default_prng_impl("rbg"), jax.threefry_partitionable(False):
        assert jax.random.uniform(jax.random.PRNGKey(3), (3,)).tolist() != drawn
        assert draw() == drawn


@settings(max_examples=300)
@given(st.integers(1, 2**40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))), seeds)
def test_entries_of_large_orders_are_those_of_grain(size_and_index: tuple[int, int], seed: int):
    examples, index = size_and_index
    if (examples - 1).bit_count() != 1:  # for those grain repeats an entry
        expected = index_shuffle(index, examples - 1, seed=seed, rounds=4)
        assert shuffled(index, examples, seed) == expected


def test_entries_of_large_orders_stay_as_they_are():
    assert [shuffled(index, 1_281_167, 77) for index in range(5)] == [
        927518,
        80243,
        802530,
        917446,
        953965,
    ]


def test_a_large_order_has_every_entry_once_also_where_grain_repeats_one():
    examples = 2**16 + 1
    assert {shuffled(index, examples, 3) for index in range(examples)} == {*range(examples)}
    assert index_shuffle(0, 2**16, seed=3, rounds=4) == index_shuffle(
        2**16, 2**16, seed=3, rounds=4
    )
