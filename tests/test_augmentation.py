"""Crops, mirrors and normalisation on the device, against numpy."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from resflax.data.augmentation.pipeline import crop_and_mirror, example_keys
from resflax.data.normalization import fit_normalization, normalize
from resflax.declarations.data import TFDS

HEIGHT, WIDTH, CHANNELS = 6, 5, 3

crop_and_mirror_jit = jax.jit(crop_and_mirror, static_argnums=2)
normalize_jit = jax.jit(normalize)

Change = tuple[int, int, bool]
"""Rows by which the crop begins lower, columns by which it begins further right, and whether it is
mirrored."""


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """(count, HEIGHT, WIDTH, CHANNELS) uint8 without a zero."""
    shape = (count, HEIGHT, WIDTH, CHANNELS)
    return np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)


def keys(count: int, seed: int = 0) -> jax.Array:
    return example_keys(jax.random.key(seed), 0, count)


def changed(picture: np.ndarray, padding: int, change: Change) -> np.ndarray:
    """Pads the picture with zeros, crops it and then mirrors it."""
    rows, columns, mirrored = change
    padded = np.pad(picture, ((padding, padding), (padding, padding), (0, 0)))
    crop = padded[padding + rows :, padding + columns :][:HEIGHT, :WIDTH]
    return crop[:, ::-1] if mirrored else crop


def allowed_changes(data: TFDS) -> list[Change]:
    """All changes that the declaration allows."""
    shifts = range(-data.crop_padding, data.crop_padding + 1)
    flips = [False, True] if data.flip else [False]
    return [(rows, columns, flip) for rows in shifts for columns in shifts for flip in flips]


def changes_between(images: np.ndarray, results: np.ndarray, data: TFDS) -> list[Change]:
    """The only change that turns each image into its result."""
    changes = []
    for image, result in zip(images, results, strict=True):
        explanations = [
            change
            for change in allowed_changes(data)
            if np.array_equal(changed(image, data.crop_padding, change), result)
        ]
        assert len(explanations) == 1, f"{len(explanations)} changes explain a result"
        changes += explanations
    return changes


@pytest.mark.parametrize(
    "data",
    [
        TFDS("x", crop_padding=1, flip=True),
        TFDS("x", crop_padding=2),
        TFDS("x", flip=True),
        TFDS("x"),
    ],
    ids=["crop and flip", "crop", "flip", "nothing"],
)
def test_every_result_is_a_crop_and_all_crops_occur_equally_often(data: TFDS):
    count = 2000
    images = pictures(count)
    normalization = fit_normalization(images, data)
    normalized = np.asarray(normalize_jit(images, normalization))
    results = np.asarray(crop_and_mirror_jit(normalized, keys(count), data))
    assert results.dtype == np.float32
    changes = changes_between(normalized, results, data)
    allowed = allowed_changes(data)
    occurrences = np.array([changes.count(change) for change in allowed])
    expected = count / len(allowed)
    # The standard deviation of a count is sqrt(expected). One of 25 counts is off by 5 deviations
    # with a probability of 1 in 10**5.
    assert np.all(np.abs(occurrences - expected) < 5 * expected**0.5)
    if data.flip:
        mirrored = sum(change[2] for change in changes) / count
        assert abs(mirrored - 0.5) < 4 * 0.5 / count**0.5


def test_padding_is_zero_after_the_normalisation():
    data = TFDS("x", crop_padding=WIDTH + 1)
    images = np.full((50, HEIGHT, WIDTH, CHANNELS), 255, np.uint8)
    images[::5] = 0
    normalized = normalize_jit(images, fit_normalization(images, data))
    results = np.asarray(crop_and_mirror_jit(normalized, keys(50), data))
    outside = np.zeros((HEIGHT, WIDTH, CHANNELS), np.float32)
    assert any(np.array_equal(result, outside) for result in results)
    assert set(np.unique(results)) == {np.float32(0), *np.unique(np.asarray(normalized))}


def test_changes_nothing_unless_declared():
    images = pictures(10).astype(np.float32)
    assert np.array_equal(crop_and_mirror_jit(images, keys(10), TFDS("x")), images)


def test_another_key_makes_other_crops_and_the_same_key_the_same():
    data = TFDS("x", crop_padding=2, flip=True)
    images = pictures(50).astype(np.float32)
    first, again, other = (
        np.asarray(crop_and_mirror_jit(images, keys(50, s), data)) for s in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert changes_between(images, first, data) != changes_between(images, other, data)


@settings(deadline=None, max_examples=30)
@given(first=st.integers(0, 12), seed=st.integers(0, 2**32 - 1))
def test_an_example_is_changed_in_the_same_way_in_every_share_of_the_batch(first: int, seed: int):
    data, key = TFDS("x", crop_padding=2, flip=True), jax.random.key(seed)
    images = pictures(16).astype(np.float32)
    batch = crop_and_mirror_jit(images, keys(16, seed), data)
    share = crop_and_mirror_jit(images[first : first + 4], example_keys(key, first, 4), data)
    assert np.array_equal(share, batch[first : first + 4])


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_an_example_is_changed_in_the_same_way_on_any_number_of_devices(devices: int):
    data, key = TFDS("x", crop_padding=2, flip=True), jax.random.key(7)
    images = pictures(16).astype(np.float32)
    on_one_device = crop_and_mirror_jit(images, example_keys(key, 0, 16), data)

    def replica(share: jax.Array) -> jax.Array:
        first = jax.lax.axis_index("data") * len(share)
        return crop_and_mirror(share, example_keys(key, first, len(share)), data)

    sharded = jax.shard_map(
        replica,
        mesh=Mesh(np.array(jax.devices()[:devices]), ("data",)),
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec("data"),
        check_vma=False,
    )
    assert np.array_equal(jax.jit(sharded)(images), on_one_device)


# --- Normalisation


def test_channel_statistics_are_those_of_numpy():
    images = pictures(100)
    images[..., 1] //= 7
    normalization = fit_normalization(images, TFDS("x"))
    np.testing.assert_allclose(normalization.mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(normalization.scale, 1 / images.std((0, 1, 2)), rtol=1e-6)
    normalized = np.asarray(normalize_jit(images, normalization))
    assert normalized.dtype == normalization.mean.dtype == normalization.scale.dtype == np.float32
    np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.std((0, 1, 2)), 1, rtol=1e-5)


def test_pixel_statistics_are_the_mean_picture():
    images = pictures(100)
    normalization = fit_normalization(images, TFDS("x", normalization="pixel"))
    np.testing.assert_allclose(normalization.mean, images.mean(0), rtol=1e-6)
    assert np.array_equal(normalization.scale, np.ones(CHANNELS))
    expected = images - images.mean(0)
    np.testing.assert_allclose(normalize_jit(images, normalization), expected, atol=1e-4)


def test_a_constant_channel_is_not_divided_by_zero():
    images = pictures(10)
    images[..., 2] = 9
    normalized = np.asarray(normalize_jit(images, fit_normalization(images, TFDS("x"))))
    assert np.all(normalized[..., 2] == 0)
    assert np.all(np.isfinite(normalized))


@pytest.mark.parametrize(
    ("normalization", "shape"), [("channel", (CHANNELS,)), ("pixel", (HEIGHT, WIDTH, CHANNELS))]
)
def test_statistics_have_the_shape_of_their_kind(normalization, shape):
    fitted = fit_normalization(pictures(10), TFDS("x", normalization=normalization))
    assert (fitted.mean.shape, fitted.mean.dtype) == (shape, np.float32)
    assert (fitted.scale.shape, fitted.scale.dtype) == ((CHANNELS,), np.float32)
