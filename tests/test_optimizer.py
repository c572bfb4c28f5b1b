"""Learning rates and SGD against their formulas, written out in Python and numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax import SGD, Cosine, Polynomial, StepDecay
from resflax.declarations.optimization import Schedule
from resflax.declarations.schedule_notes import schedule_notes
from resflax.training.optimizer import make_optimizer
from resflax.training.schedule import learning_rate


def rates(schedule: Schedule, peak: float, steps: int) -> np.ndarray:
    """Learning rate of every step."""
    rate = learning_rate(schedule, peak, steps)
    assert rate(jnp.int32(0)).dtype == jnp.float32
    return np.asarray(jax.vmap(rate)(jnp.arange(steps)))


def warmed_up(schedule: Schedule, peak: float, step: int, main: float) -> float:
    """The rate at a step whose rate without warm-up is `main`."""
    if step >= schedule.warmup_steps:
        return main
    start = schedule.warmup_learning_rate
    if schedule.warmup == "constant":
        return start
    return start + (peak - start) * step / schedule.warmup_steps


def step_decay(schedule: StepDecay, peak: float, steps: int) -> list[float]:
    expected = []
    for step in range(steps):
        passed = sum(
            step >= (round(boundary * steps) if isinstance(boundary, float) else boundary)
            for boundary in schedule.boundaries
        )
        expected.append(warmed_up(schedule, peak, step, peak * schedule.factor**passed))
    return expected


def cosine(schedule: Cosine, peak: float, steps: int) -> list[float]:
    expected = []
    for step in range(steps):
        done = (step - schedule.warmup_steps) / max(steps - schedule.warmup_steps, 1)
        height = (peak - schedule.final_learning_rate) * (1 + math.cos(math.pi * done)) / 2
        expected.append(warmed_up(schedule, peak, step, schedule.final_learning_rate + height))
    return expected


def polynomial(schedule: Polynomial, peak: float, steps: int) -> list[float]:
    expected = []
    for step in range(steps):
        done = (step - schedule.warmup_steps) / max(steps - schedule.warmup_steps, 1)
        height = (peak - schedule.final_learning_rate) * (1 - max(done, 0)) ** schedule.power
        expected.append(warmed_up(schedule, peak, step, schedule.final_learning_rate + height))
    return expected


warmups = {
    "warmup_steps": st.integers(0, 40),
    "warmup_learning_rate": st.floats(0, 0.5),
    "warmup": st.sampled_from(["constant", "linear"]),
}
peaks = st.floats(0.01, 1)
fractions = st.sets(st.floats(0.001, 0.999), max_size=4).map(sorted)
places = st.sets(st.integers(1, 60), max_size=4).map(sorted)


@settings(deadline=None, max_examples=20)
@given(
    st.builds(StepDecay, boundaries=fractions | places, factor=st.floats(0.01, 2), **warmups),
    peaks,
    st.integers(1, 50),
)
def test_step_decay_at_every_step(schedule: StepDecay, peak: float, steps: int):
    actual = rates(schedule, peak, steps)
    np.testing.assert_allclose(actual, step_decay(schedule, peak, steps), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(
    st.builds(Cosine, final_learning_rate=st.floats(0, 1e-3), **warmups),
    peaks,
    st.integers(1, 50),
)
def test_cosine_at_every_step(schedule: Cosine, peak: float, steps: int):
    actual = rates(schedule, peak, steps)
    np.testing.assert_allclose(actual, cosine(schedule, peak, steps), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(
    st.builds(
        Polynomial,
        power=st.floats(0.5, 3),
        final_learning_rate=st.floats(0, 1e-3),
        **warmups,
    ),
    peaks,
    st.integers(1, 50),
)
def test_polynomial_at_every_step(schedule: Polynomial, peak: float, steps: int):
    actual = rates(schedule, peak, steps)
    np.testing.assert_allclose(actual, polynomial(schedule, peak, steps), rtol=1e-5, atol=1e-6)


def test_the_schedule_of_he_2015():
    schedule = StepDecay((32_000, 48_000), 0.1, warmup_steps=400, warmup_learning_rate=0.01)
    rate = learning_rate(schedule, 0.1, 64_000)
    marks = {0: 0.01, 399: 0.01, 400: 0.1, 31_999: 0.1, 32_000: 0.01, 48_000: 0.001, 63_999: 0.001}
    actual = [float(rate(jnp.int32(step))) for step in marks]
    np.testing.assert_allclose(actual, list(marks.values()), rtol=1e-6)


def test_a_fraction_is_the_step_it_stands_for():
    fractions, places = StepDecay(boundaries=(0.5, 0.75)), StepDecay(boundaries=(50, 75))
    assert np.array_equal(rates(fractions, 0.1, 100), rates(places, 0.1, 100))


def test_the_last_step_of_the_longest_training():
    schedule = StepDecay(boundaries=(2**31 - 2,), factor=0.5)
    rate = learning_rate(schedule, 1.0, 2**31 - 1)
    assert [float(rate(jnp.int32(step))) for step in (2**31 - 3, 2**31 - 2)] == [1.0, 0.5]


@pytest.mark.parametrize(
    "declared",
    [
        SGD(learning_rate=0.1, momentum=0.0, weight_decay=0.0),
        SGD(learning_rate=0.1, momentum=0.0, weight_decay=0.01),
        SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.01),
        SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    ],
    ids=["plain", "weight decay", "momentum", "Nesterov"],
)
def test_sgd_is_its_formula(declared: SGD):
    schedule = StepDecay(boundaries=(3,), factor=0.1, warmup_steps=1, warmup_learning_rate=0.01)
    rate_of_step = [0.01, 0.1, 0.1, 0.01, 0.01]
    random = np.random.default_rng(0)
    # A kernel, and a scale: weight decay is for every parameter.
    shapes = {"kernel": (3, 4), "scale": (4,)}
    start = {name: random.normal(size=shape) for name, shape in shapes.items()}
    gradients = [
        {name: random.normal(size=shape) for name, shape in shapes.items()} for _ in rate_of_step
    ]

    optimizer = make_optimizer(declared, learning_rate(schedule, declared.learning_rate, 5))
    params = {name: jnp.float32(value) for name, value in start.items()}
    state = optimizer.init(params)
    for gradient in gradients:
        device_gradient = {name: jnp.float32(value) for name, value in gradient.items()}
        updates, state = optimizer.update(device_gradient, state, params)
        params = optax.apply_updates(params, updates)

    for name, p in start.items():
        v = np.zeros_like(p)
        for rate, gradient in zip(rate_of_step, gradients, strict=True):
            g = gradient[name] + declared.weight_decay * p
            v = declared.momentum * v + g
            p = p - rate * (g + declared.momentum * v if declared.nesterov else v)
        np.testing.assert_allclose(params[name], p, rtol=1e-5, atol=1e-6)


warmed = st.fixed_dictionaries(
    {
        "warmup_steps": st.integers(0, 40),
        "warmup_learning_rate": st.sampled_from([0.0, 0.01]),
        "warmup": st.sampled_from(["constant", "linear"]),
    }
)


@settings(deadline=None, max_examples=100)
@given(warmed, st.sets(st.integers(1, 60), max_size=3).map(sorted), st.integers(1, 50))
def test_notes_name_the_parts_of_a_schedule_that_have_no_effect(warmup, boundaries, steps):
    schedule = StepDecay(boundaries=tuple(boundaries), factor=0.5, **warmup)
    expected = step_decay(schedule, 1.0, steps)
    notes = "; ".join(schedule_notes(schedule, steps))
    only_warmup = step_decay(StepDecay(**warmup), 1.0, steps) == expected and max(expected) < 1
    assert ("nothing but warm-up" in notes) == only_warmup
    assert ("does not reach its peak" in notes) <= (max(expected) < 1)
    if not only_warmup:
        assert ("does not reach its peak" in notes) == (max(expected) < 1)
        assert ("nothing is learned" in notes) == (
            expected[0] == 0 and warmup["warmup"] == "constant"
        )
    without = [
        step_decay(StepDecay(boundaries=tuple(boundaries[:n]), factor=0.5, **warmup), 1.0, steps)
        for n in range(len(boundaries))
    ]
    reached = sum(shorter != expected for shorter in without)
    late = " and ".join(map(str, boundaries[reached:]))
    assert only_warmup or (f"not decay at {late} (" in notes) == (late != "")


@pytest.mark.parametrize(
    ("schedule", "steps", "notes"),
    [
        (StepDecay((32_000, 48_000), warmup_steps=400, warmup_learning_rate=0.01), 64_000, []),
        (
            StepDecay((32_000, 48_000), warmup_steps=400, warmup_learning_rate=0.01),
            1_000,
            [
                "the learning rate does not decay at 32,000 and 48,000 (schedule.boundaries): the "
                "training ends after 1,000 steps"
            ],
        ),
        (
            StepDecay((32_000, 48_000), warmup_steps=400, warmup_learning_rate=0.01),
            400,
            [
                "nothing but warm-up: the training has 400 steps, and schedule.warmup_steps is "
                "400, so that the learning rate is 0.01 in all of them"
            ],
        ),
        (
            Cosine(warmup_steps=500),
            100,
            [
                "nothing but warm-up: the training has 100 steps, and schedule.warmup_steps is "
                "500, so that the learning rate does not reach its peak"
            ],
        ),
        (
            StepDecay((50,), warmup_steps=60, warmup_learning_rate=0.01),
            100,
            [
                "the learning rate does not reach its peak: it decays at 50 (schedule.boundaries), "
                "and the warm-up takes 60 steps"
            ],
        ),
        (
            StepDecay(warmup_steps=1),
            100,
            [
                "nothing is learned in the warm-up, the first 1 step, because "
                "schedule.warmup_learning_rate is 0"
            ],
        ),
        (StepDecay((0.5, 0.75)), 4, []),
        (Polynomial(warmup_steps=99), 100, []),
    ],
)
def test_notes_on_a_schedule_are_one_line_each(schedule: Schedule, steps: int, notes: list[str]):
    assert schedule_notes(schedule, steps) == notes
