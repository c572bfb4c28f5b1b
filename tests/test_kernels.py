"""Our own kernels against XLA's convolutions and their gradients, and against float64."""

import hashlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resflax.kernels import library
from resflax.kernels.convolution import Arguments, Options, convolve, reference
from resflax.kernels.threads import allowed_threads

pytestmark = pytest.mark.skipif(not library.load(), reason="the kernels were not built")


def random_arguments(
    generator, batch, height, width, channels, outputs, size, groups, *, scaled, dtype="float32"
):
    """Arguments with random numbers; the kernel is scaled so that results are near 1."""
    inputs = sum(channels)

    def draw(*shape, scale=1.0, dtype=dtype):
        return jnp.asarray(scale * generator.standard_normal(shape), dtype)

    maps = tuple(draw(batch, height, width, c) for c in channels)
    fan_in = size * size * inputs / groups
    kernel = draw(size, size, inputs // groups, outputs, scale=fan_in**-0.5)
    factor, offset = (draw(inputs, dtype="float32") for _ in range(2)) if scaled else (None, None)
    return Arguments(maps, kernel, factor, offset)


def results_and_gradients(function, options, arguments, cotangents):
    """What the function returns, and the gradients of its arguments, as flat lists of arrays."""
    results, pull = jax.vjp(partial(function, options), arguments)
    return [*results, *jax.tree.leaves(pull(cotangents))]


def assert_close(found, expected, tolerance):
    """Whether arrays agree, by their largest entries."""
    for one, other in zip(found, expected, strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert one.shape == other.shape
        if one.size:
            assert np.abs(one - other).max() <= tolerance * (np.abs(other).max() + 1e-3)


CASES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "batch": st.integers(1, 20),
        "height": st.integers(1, 18),
        "width": st.integers(1, 18),
        "channels": st.lists(st.integers(1, 40), min_size=1, max_size=3),
        "outputs": st.integers(1, 40),
        "size": st.sampled_from([1, 3, 5, 7]),
        "stride": st.integers(1, 3),
        "groups": st.sampled_from([1, 1, 2, 4]),
        "relu": st.booleans(),
        "sums": st.booleans(),
        "scaled": st.booleans(),
    }
)


def made(case, dtype="float32"):
    """Options, arguments and gradients of the results for a case."""
    generator, groups = np.random.default_rng(case["seed"]), case["groups"]
    arguments = random_arguments(
        generator,
        case["batch"],
        case["height"],
        case["width"],
        [groups * c for c in case["channels"]][: 1 if groups > 1 else None],
        groups * case["outputs"],
        case["size"],
        groups,
        scaled=case["scaled"],
        dtype=dtype,
    )
    options = Options(case["stride"], groups, case["relu"], case["sums"])
    shapes = jax.eval_shape(partial(reference, options), arguments)
    cotangents = tuple(jnp.asarray(generator.standard_normal(s.shape), s.dtype) for s in shapes)
    return options, arguments, cotangents


@settings(max_examples=25, deadline=None)
@given(CASES)
def test_results_and_gradients_are_those_of_xla(case):
    options, arguments, cotangents = made(case)
    found = results_and_gradients(convolve, options, arguments, cotangents)
    expected = results_and_gradients(reference, options, arguments, cotangents)
    assert_close(found, expected, 1e-5)


@pytest.mark.parametrize(
    ("channels", "outputs", "size", "side", "stride"),
    [([512], 512, 3, 7, 1), ([256], 512, 1, 14, 2), ([3], 64, 7, 56, 2), ([192, 64], 48, 1, 16, 1)],
)
def test_shapes_of_large_networks_are_as_close_to_float64_as_xla_is(
    channels, outputs, size, side, stride
):
    options = Options(stride, relu=True, sums=True)
    generator = np.random.default_rng(0)
    arguments = random_arguments(generator, 3, side, side, channels, outputs, size, 1, scaled=True)
    shapes = jax.eval_shape(partial(reference, options), arguments)
    cotangents = tuple(jnp.asarray(generator.standard_normal(s.shape), s.dtype) for s in shapes)
    found = results_and_gradients(convolve, options, arguments, cotangents)
    by_xla = results_and_gradients(reference, options, arguments, cotangents)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), arguments)
        wide_cotangents = tuple(jnp.asarray(np.asarray(c), jnp.float64) for c in cotangents)
        results, pull = jax.vjp(partial(wide_reference, options), wide)
        exact = [*results, *jax.tree.leaves(pull(wide_cotangents))]
        for own, xla, true in zip(found, by_xla, exact, strict=True):
            true = np.asarray(true)
            size_of_true = np.abs(true).max()
            error, error_of_xla = (np.abs(np.asarray(a) - true).max() for a in (own, xla))
            assert error <= 2 * error_of_xla + 1e-6 * size_of_true


def wide_reference(options, arguments):
    """The convolution of one group in float64, with its sums."""
    x = jnp.concatenate(arguments.maps, -1) * arguments.factor + arguments.offset
    pad = arguments.kernel.shape[0] // 2
    y = jax.lax.conv_general_dilated(
        jnp.maximum(x, 0),
        arguments.kernel,
        (options.stride, options.stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y, jnp.stack([jnp.sum(y, (0, 1, 2)), jnp.sum(jnp.square(y), (0, 1, 2))])


@settings(max_examples=8, deadline=None)
@given(CASES)
def test_bfloat16_is_float32_rounded(case):
    options, arguments, cotangents = made(case, "bfloat16")
    found = results_and_gradients(convolve, options, arguments, cotangents)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (arguments, cotangents))
    expected = results_and_gradients(convolve, options, *wide)
    # y is rounded before it is summed, and the sums' gradient reads the rounded y.
    assert_close(found, expected, 2e-2)


@pytest.mark.parametrize("sums", [False, True])
def test_gradients_of_gradients_are_those_of_xla(sums):
    generator = np.random.default_rng(0)
    arguments = random_arguments(generator, 2, 5, 6, [3, 4], 5, 3, 1, scaled=True)
    options = Options(2, relu=True, sums=sums)

    def of_gradient(function):
        def loss(arguments):
            leaves = jax.tree.leaves(function(options, arguments))
            return sum(jnp.sum(jnp.tanh(leaf) ** 2) for leaf in leaves)

        def of_first(arguments):
            leaves = jax.tree.leaves(jax.grad(loss)(arguments))
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves)

        return jax.tree.leaves(jax.jit(jax.grad(of_first))(arguments))

    assert_close(of_gradient(convolve), of_gradient(reference), 1e-4)


def test_a_factor_has_a_gradient_where_the_maps_have_none():
    arguments = random_arguments(np.random.default_rng(0), 2, 6, 6, [8], 8, 3, 1, scaled=True)

    def loss(function, factor):
        y, _ = function(Options(relu=True), arguments._replace(factor=factor))
        return jnp.sum(y**2)

    found, expected = (jax.grad(partial(loss, f))(arguments.factor) for f in (convolve, reference))
    assert_close([found], [expected], 1e-5)


def test_maps_without_a_gradient_cost_nothing():
    arguments = random_arguments(np.random.default_rng(0), 2, 6, 6, [3], 8, 3, 1, scaled=False)

    def loss(kernel):
        return jnp.sum(convolve(Options(), arguments._replace(kernel=kernel))[0] ** 2)

    program = jax.jit(jax.grad(loss)).lower(arguments.kernel).as_text()
    (call,) = [line for line in program.splitlines() if library.target("Backward") in line]
    assert "2x6x6x3xf32" not in call.rpartition("->")[2]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_passes_through(value):
    arguments = random_arguments(np.random.default_rng(0), 2, 6, 6, [4], 5, 3, 1, scaled=True)
    spoiled = arguments._replace(
        maps=(arguments.maps[0].at[0, 2, 3, 1].set(value),), factor=jnp.ones(4)
    )
    y, sums = convolve(Options(relu=True, sums=True), spoiled)
    expected, _ = reference(Options(relu=True, sums=True), spoiled)
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(expected))
    assert not np.isfinite(y[0]).all()
    assert np.isfinite(y[1]).all()
    assert not np.isfinite(sums).any()


def test_an_empty_batch_has_empty_results_and_gradients_of_zero():
    arguments = random_arguments(np.random.default_rng(0), 0, 6, 6, [4], 5, 3, 1, scaled=True)
    y, sums = convolve(Options(sums=True), arguments)
    assert y.shape == (0, 6, 6, 5)
    assert not sums.any()
    gradients = jax.grad(lambda a: jnp.sum(convolve(Options(), a)[0]))(arguments)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_vmap_loops_and_checkpoints():
    arguments = random_arguments(np.random.default_rng(0), 4, 8, 8, [6], 6, 3, 1, scaled=False)

    def loss(function, maps):
        def unit(x, _):
            return jnp.tanh(function(Options(), arguments._replace(maps=(x,)))[0]), None

        return jnp.sum(jax.lax.scan(jax.checkpoint(unit), maps, None, 3)[0] ** 2)

    stacked = jnp.stack([arguments.maps[0], 2 * arguments.maps[0]])
    found, expected = (
        jax.jit(jax.vmap(jax.grad(partial(loss, f))))(stacked) for f in (convolve, reference)
    )
    assert_close([found], [expected], 1e-5)


DIGEST = """
import os, sys
if sys.argv[1] == "1":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
sys.path.insert(0, sys.argv[2])
import jax, jax.numpy as jnp, numpy as np
from test_kernels import digest
print(digest())
"""


def digest():
    """A digest of results and gradients of some shapes."""
    assert library.load()
    result = hashlib.sha256()
    generator = np.random.default_rng(0)
    for batch, side, channels, outputs, size in (
        (50, 8, [16], 16, 3),
        (7, 16, [12, 30], 48, 1),
        (3, 7, [512], 256, 3),
    ):
        arguments = random_arguments(
            generator, batch, side, side, channels, outputs, size, 1, scaled=True
        )

        def loss(arguments):
            y, sums = convolve(Options(relu=True, sums=True), arguments)
            return jnp.sum(jnp.tanh(y)) + jnp.sum(jnp.tanh(sums))

        for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(arguments)):
            result.update(np.asarray(leaf).tobytes())
    return result.hexdigest()


def test_numbers_are_equal_to_the_bit_for_every_number_of_threads():
    def of_process(threads):
        command = [sys.executable, "-c", DIGEST, threads, str(Path(__file__).parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        return done.stdout

    assert of_process("1").strip() == of_process("all").strip() == digest()


def test_threads_are_counted_where_a_process_has_no_affinity(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert allowed_threads(tmp_path) == os.cpu_count()


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({}, None),
    ],
)
def test_threads_are_no_more_than_the_control_group_allows(tmp_path, files, most):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    all_processors = allowed_threads(tmp_path / "missing")
    expected = all_processors if most is None else min(most, all_processors)
    assert allowed_threads(tmp_path) == expected
