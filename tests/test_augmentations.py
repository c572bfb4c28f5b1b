"""Policies, colour jitter, lighting, erasing and mixing against Pillow and numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from resflax import Augmentation, UsageError
from resflax.data.augmentation import colour, mixing, policies
from resflax.data.augmentation.erasing import ASPECT, erase
from resflax.data.augmentation.operations import OPERATIONS, apply_operation
from resflax.data.augmentation.pipeline import example_keys, training_images
from resflax.data.normalization import fit_normalization, normalize
from resflax.declarations.data import TFDS

RNG = np.random.default_rng(0)
FILL = np.array([10, 120, 200], np.uint8)


def smooth_picture(channels=3, height=24, width=20) -> np.ndarray:
    """(H, W, C) uint8 with slopes in every channel and some noise, within a part of 0 to 255."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + c)) + np.cos(y / (4 + c)) for c in range(channels)]
    noisy = np.stack(waves, -1) * 50 + 120 + RNG.normal(0, 4, (height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8)


def keys(count: int) -> jax.Array:
    return example_keys(jax.random.key(3), 0, count)


def flat_picture(channels=3) -> np.ndarray:
    return np.full((9, 7, channels), 77, np.uint8)


def as_pillow(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def outside(image: Image.Image) -> tuple[int, ...]:
    return tuple(FILL[: len(image.getbands())].tolist())


def affine(image: Image.Image, *matrix: float) -> Image.Image:
    method = Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    return image.transform(image.size, *method, fillcolor=outside(image))


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=outside(image))


def add_below_half(image: Image.Image, amount: float) -> Image.Image:
    table = [min(255, i + int(amount)) if i < 128 else i for i in range(256)]
    return image.point(table * len(image.getbands()))


PILLOW = {
    "identity": lambda image, amount: image,
    "auto_contrast": lambda image, amount: ImageOps.autocontrast(image),
    "equalize": lambda image, amount: ImageOps.equalize(image),
    "invert": lambda image, amount: ImageOps.invert(image),
    "posterize": lambda image, amount: ImageOps.posterize(image, int(amount)),
    "solarize": lambda image, amount: ImageOps.solarize(image, int(amount)),
    "solarize_add": add_below_half,
    "brightness": lambda image, amount: ImageEnhance.Brightness(image).enhance(amount),
    "contrast": lambda image, amount: ImageEnhance.Contrast(image).enhance(amount),
    "color": lambda image, amount: ImageEnhance.Color(image).enhance(amount),
    "sharpness": lambda image, amount: ImageEnhance.Sharpness(image).enhance(amount),
    "rotate": rotate,
    "shear_x": lambda image, amount: affine(image, 1, amount, 0, 0, 1, 0),
    "shear_y": lambda image, amount: affine(image, 1, 0, 0, amount, 1, 0),
    "translate_x": lambda image, amount: affine(image, 1, 0, amount * image.width, 0, 1, 0),
    "translate_y": lambda image, amount: affine(image, 1, 0, 0, 0, 1, amount * image.height),
}
AMOUNTS = {
    "posterize": (1, 4, 7, 8),
    "solarize": (0, 100, 256),
    "solarize_add": (0, 55, 110),
    "rotate": (0.0, 17.0, -30.0, 3.3),
    "shear_x": (0.0, 0.3, -0.21),
    "shear_y": (0.0, 0.3, -0.21),
    "translate_x": (0.0, 0.25, -0.45),
    "translate_y": (0.0, 0.25, -0.45),
    **dict.fromkeys(("brightness", "contrast", "color", "sharpness"), (0.1, 0.7, 1.0, 1.9)),
}
apply_operation_jit = jax.jit(apply_operation)


def test_every_operation_is_compared():
    assert PILLOW.keys() == set(OPERATIONS)
    used = {row.operation for policy in policies.POLICIES.values() for row in policy}
    assert used == set(OPERATIONS)
    assert {name: len(policy) for name, policy in policies.POLICIES.items()} == {
        "rand_augment": 14,
        "rand_augment_increasing": 15,
    }


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("picture", [smooth_picture(3), smooth_picture(1), flat_picture()])
def test_operations_give_the_results_of_pillow(name: str, picture: np.ndarray):
    operation, fill = jnp.int32(OPERATIONS.index(name)), FILL[: picture.shape[-1]]
    for amount in AMOUNTS.get(name, (0,)):
        expected = np.asarray(PILLOW[name](as_pillow(picture), amount)).reshape(picture.shape)
        result = np.asarray(apply_operation_jit(picture, operation, jnp.float32(amount), fill))
        assert result.dtype == np.uint8
        difference = np.abs(result.astype(int) - expected)
        # One level comes from rounding. It can also move a source across the edge of the picture.
        tolerated = 0.01 if name in ("rotate", "shear_x") else 0
        assert np.mean(difference.max(-1) > 1) <= tolerated, amount
        assert np.mean(difference > 0) < 0.6


# --- RandAugment

# Amounts at magnitude 6, from AutoAugment's ranges and timm's functions.
_GEOMETRIC = {"rotate": (-18, 18), "shear_x": (-0.18, 0.18), "shear_y": (-0.18, 0.18)}
_ENHANCING = ("color", "contrast", "brightness", "sharpness")
AT_SIX: dict[str, dict[str, tuple[float, ...]]] = {
    "rand_augment": {
        **dict.fromkeys(("identity", "auto_contrast", "equalize"), (0,)),
        **dict.fromkeys(_ENHANCING, (1.18,)),
        **dict.fromkeys(("translate_x", "translate_y"), (-90 / 331, 90 / 331)),
        **_GEOMETRIC,
        "solarize": (153,),
        "posterize": (6,),
    },
    "rand_augment_increasing": {
        **dict.fromkeys(("auto_contrast", "equalize", "invert"), (0,)),
        **dict.fromkeys(_ENHANCING, (0.46, 1.54)),
        **dict.fromkeys(("translate_x", "translate_y"), (-0.27, 0.27)),
        **_GEOMETRIC,
        "posterize": (2,),
        "solarize": (103,),
        "solarize_add": (66,),
    },
}


@pytest.mark.parametrize("policy", policies.POLICIES)
def test_all_operations_are_equally_probable_with_the_amounts_of_their_source(policy):
    augmentation = Augmentation(policy=policy, policy_magnitude=6, policy_probability=0.5)
    count, expected_count = 3000, 3000 / len(policies.POLICIES[policy])
    drawn = jax.vmap(lambda key: policies.draw_operation(key, augmentation))(keys(count))
    operations, amounts, applied = map(np.asarray, drawn)
    amounts_of: dict[str, set[float]] = {}
    for operation, amount in zip(operations, amounts, strict=True):
        amounts_of.setdefault(OPERATIONS[operation], set()).add(round(float(amount), 4))
    assert amounts_of == {
        name: {round(a, 4) for a in expected} for name, expected in AT_SIX[policy].items()
    }
    counts = np.bincount(operations)[np.unique(operations)]
    assert np.all(np.abs(counts - expected_count) < 5 * expected_count**0.5)
    assert abs(applied.mean() - 0.5) < 4 * 0.5 / count**0.5


def test_the_magnitude_varies_and_stays_in_its_range():
    augmentation = Augmentation(
        policy="rand_augment_increasing", policy_magnitude=9, policy_magnitude_std=2
    )
    draw = jax.vmap(lambda key: policies.draw_operation(key, augmentation))
    operations, amounts, _ = draw(keys(4000))
    degrees = np.abs(np.asarray(amounts)[operations == OPERATIONS.index("rotate")])
    assert 0.25 < np.mean(degrees == 30) < 0.38  # 31 % of the normal distribution is above 10
    assert abs(np.median(degrees) - 27) < 1


def test_a_policy_is_its_operations_one_after_another():
    augmentation = Augmentation(policy="rand_augment_increasing", policy_layers=3)
    picture, fill = jnp.asarray(smooth_picture()), jnp.asarray(FILL)
    run = jax.jit(lambda key: policies.apply_policy(picture, key, augmentation, fill))
    for key in keys(4):
        expected = picture
        for layer in range(3):
            operation, amount, _ = policies.draw_operation(
                jax.random.fold_in(key, layer), augmentation
            )
            expected = apply_operation_jit(expected, operation, amount, fill)
        np.testing.assert_allclose(run(key), np.asarray(expected).astype(int), atol=1)


# --- Colour


def blended(image: np.ndarray, partner: int, amount: float) -> np.ndarray:
    """The image blended with black (partner 0), its mean gray (1) or its gray picture (2)."""
    gray = image @ np.array([[0.299], [0.587], [0.114]])
    return amount * image + (1 - amount) * (0, gray.mean(), gray)[partner]


def test_jitter_is_three_blends_in_any_order():
    picture = smooth_picture().astype(np.float32)
    image = jnp.asarray(picture)
    names = ("brightness", "contrast", "saturation")

    def run(**widths):
        jitter = jax.vmap(lambda key: colour.jitter(image, key, Augmentation(**widths)))
        return np.asarray(jax.jit(jitter)(keys(60)))

    amounts = []
    for partner, name in enumerate(names):  # the amount of each alone, from the strongest pixel
        change = picture - blended(picture, partner, 0)
        strongest = np.unravel_index(np.abs(change).argmax(), change.shape)
        results = run(**{name: 0.4})[(slice(None), *strongest)]
        amounts.append(1 + (results - picture[strongest]) / change[strongest])
        assert np.all(np.abs(amounts[-1] - 1) <= 0.4001)
        assert np.ptp(amounts[-1]) > 0.6
    orders_seen = set()
    for number, result in enumerate(run(**dict.fromkeys(names, 0.4))):
        distances = {}
        for order in itertools.permutations(range(3)):
            expected = picture
            for partner in order:
                expected = blended(expected, partner, amounts[partner][number])
            distances[order] = np.abs(result - expected).max()
        assert min(distances.values()) < 0.01
        orders_seen.add(min(distances, key=lambda order: distances[order]))
    assert len(orders_seen) == 6


def test_lighting_moves_along_the_principal_components():
    picture = jnp.full((2, 2, 3), 100.0)
    moved = np.asarray(jax.vmap(lambda key: colour.light(picture, key, 0.1))(keys(4000))) - 100
    assert np.all(np.ptp(moved, (1, 2)) < 1e-4)
    noise = moved[:, 0, 0]
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.814], [-0.5836, -0.6948, 0.4203]]
    )
    along = noise @ vectors / (255 * 0.1)
    np.testing.assert_allclose(along.std(0), [0.2175, 0.0188, 0.0045], rtol=0.05)
    np.testing.assert_allclose(along.mean(0), 0, atol=0.015)


# --- Erasing and mixing


def test_one_rectangle_of_the_declared_form_is_erased():
    height, width, count = 32, 40, 800
    image = jnp.ones((height, width, 2))
    erased = np.asarray(jax.jit(jax.vmap(lambda key: erase(image, key, 0.7)))(keys(count))) == 0
    shares = erased.mean((1, 2, 3))
    assert abs(np.mean(shares > 0) - 0.7) < 4 * 0.46 / count**0.5
    for mask in erased[shares > 0]:
        rows, columns = mask.any((1, 2)), mask.any((0, 2))
        assert np.array_equal(mask, (rows[:, None] & columns)[..., None] & np.ones(2, bool))
        assert rows.sum() == np.ptp(np.flatnonzero(rows)) + 1
        assert columns.sum() == np.ptp(np.flatnonzero(columns)) + 1
        assert ASPECT[0] / 1.3 < rows.sum() / columns.sum() < ASPECT[1] * 1.3  # rounded sides
    assert 0.015 < shares[shares > 0].min() < 0.04
    assert 0.25 < shares.max() < 0.35


def mixed(augmentation: Augmentation, count=400, size=8):
    """A batch of pictures, the results of mixing it many times, and the weights."""
    images = np.random.default_rng(1).random((4, size, size + 2, 3), np.float32)
    mix = jax.jit(jax.vmap(lambda key: mixing.mix(jnp.asarray(images), key, augmentation)))
    results, weights = mix(jax.random.split(jax.random.key(0), count))
    return images, np.asarray(results), np.asarray(weights)


def test_mixup_is_a_weighted_mean_of_neighbours():
    images, results, weights = mixed(Augmentation(mixup=1.0))
    others, w = images[[1, 0, 3, 2]], weights[:, None, None, None, None]
    np.testing.assert_allclose(results, w * images + (1 - w) * others, atol=1e-6)
    assert abs(weights.mean() - 1 / 2) < 0.05
    assert abs(weights.var() - 1 / 12) < 0.015  # of Beta(1, 1)


def test_the_weight_of_cutmix_is_the_area_that_is_left():
    images, results, weights = mixed(Augmentation(cutmix=1.0))
    others = images[[1, 0, 3, 2]]
    own = np.all(results == images, -1)
    assert np.array_equal(~own, np.all(results == others, -1))
    assert np.all(own == own[:, :1])  # one rectangle for the whole batch
    np.testing.assert_allclose(own.mean((1, 2, 3)), weights, atol=1e-6)
    for mask in ~own[:, 0]:
        assert np.array_equal(mask, mask.any(1)[:, None] & mask.any(0))
    assert len(np.unique(weights)) > 20


def test_mixing_switches_as_often_as_declared():
    both = Augmentation(mixup=0.5, cutmix=1.0, mix_probability=0.8, mix_switch_probability=0.25)
    images, results, weights = mixed(both)
    own = np.all(results == images, (-1, -2, -3, -4))
    pasted = np.all((results == images) | (results == images[[1, 0, 3, 2]]), (-1, -2, -3, -4))
    assert np.all(weights[own] == 1)
    assert abs(own.mean() - 0.2) < 0.08  # and cutmix of next to nothing
    assert abs((pasted & ~own).mean() - 0.2) < 0.08
    images, results, _ = mixed(Augmentation(mixup=1.0, cutmix=1.0, mix_probability=0.0), count=5)
    assert np.all(results == images)


def test_targets_are_those_of_timm():
    labels, classes, weight = np.array([0, 2, 1, 1]), 4, jnp.float32(0.7)
    smoothed = np.full((4, classes), 0.1 / classes)
    smoothed[np.arange(4), labels] += 0.9
    expected = 0.7 * smoothed + 0.3 * smoothed[[1, 0, 3, 2]]
    soft = Augmentation(mixup=0.1, label_smoothing=0.1)
    targets = mixing.soft_targets(jnp.asarray(labels), classes, weight, soft)
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    hard = Augmentation(mixup=0.1, label_smoothing=0.1, target_threshold=0.2)
    targets = mixing.soft_targets(jnp.asarray(labels), classes, weight, hard)
    assert np.array_equal(targets, expected > 0.2)
    assert np.asarray(targets).sum(1).tolist() == [2, 2, 1, 1]


# --- The whole pipeline

GRAY = Augmentation(
    policy="rand_augment", policy_layers=1, brightness=0.4, contrast=0.4, random_erasing=0.5
)
DATA = TFDS("x", crop_padding=1, flip=True)


def pictures(count, channels=3):
    return np.stack([smooth_picture(channels, 8, 8) for _ in range(count)])


def test_the_default_changes_nothing():
    images, data = jnp.asarray(pictures(4)), TFDS("x")
    normalization = fit_normalization(pictures(4), data)
    results = training_images(images, keys(4), normalization, data, Augmentation())
    assert np.array_equal(results, normalize(images, normalization))
    assert not Augmentation().softens


def test_gray_pictures_are_changed_by_all_that_does_not_need_colours():
    GRAY.check_channels(1)
    images = pictures(4, 1)
    normalization = fit_normalization(images, DATA)
    run = jax.jit(lambda images: training_images(images, keys(4), normalization, DATA, GRAY))
    results = run(images)
    assert results.shape == images.shape
    assert np.all(np.isfinite(results))
    for coloured in (Augmentation(saturation=0.3), Augmentation(lighting=0.3)):
        with pytest.raises(UsageError, match=r"^Augmentation.\w+ is 0.3; .* 3 channels.* 1$"):
            coloured.check_channels(1)
    with pytest.raises(UsageError, match="policy is 'rand_augment'; it needs 1 or 3 channels"):
        Augmentation(policy="rand_augment").check_channels(4)
