"""RandAugment (Cubuk et al. 2020): a few random operations in a row, all of the same strength."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.augmentation.operations import OPERATIONS, apply_operation
from resflax.declarations.augmentation import Augmentation

Array = jax.Array


class PolicyOperation(NamedTuple):
    """An operation of a policy, and how its amount depends on the strength.

    The amount is start + span * strength, where the strength is between 0 and 1.
    """

    operation: str
    """One of `OPERATIONS`."""
    start: float = 0.0
    span: float = 0.0
    random_sign: bool = False
    """Whether span * strength is added or subtracted at random."""
    truncated: bool = False
    """Whether span * strength is truncated to a whole number."""


class DrawnOperation(NamedTuple):
    """What one layer of a policy does to a picture."""

    operation: Array
    """() int32, the index of the operation in `OPERATIONS`."""
    amount: Array
    """() float32."""
    applied: Array
    """() bool: whether the operation is applied."""


# Cubuk et al. 2019 translate pictures of 331 pixels by up to 150.
_PAPER = (
    PolicyOperation("identity"),
    PolicyOperation("auto_contrast"),
    PolicyOperation("equalize"),
    PolicyOperation("rotate", span=30, random_sign=True),
    PolicyOperation("solarize", span=256, truncated=True),
    PolicyOperation("color", 0.1, 1.8),
    PolicyOperation("posterize", 4, 4, truncated=True),
    PolicyOperation("contrast", 0.1, 1.8),
    PolicyOperation("brightness", 0.1, 1.8),
    PolicyOperation("sharpness", 0.1, 1.8),
    PolicyOperation("shear_x", span=0.3, random_sign=True),
    PolicyOperation("shear_y", span=0.3, random_sign=True),
    PolicyOperation("translate_x", span=150 / 331, random_sign=True),
    PolicyOperation("translate_y", span=150 / 331, random_sign=True),
)

# timm/data/auto_augment.py, `_RAND_INCREASING_TRANSFORMS`.
_INCREASING = (
    PolicyOperation("auto_contrast"),
    PolicyOperation("equalize"),
    PolicyOperation("invert"),
    PolicyOperation("rotate", span=30, random_sign=True),
    PolicyOperation("posterize", 4, -4, truncated=True),
    PolicyOperation("solarize", 256, -256, truncated=True),
    PolicyOperation("solarize_add", span=110, truncated=True),
    PolicyOperation("color", 1, 0.9, random_sign=True),
    PolicyOperation("contrast", 1, 0.9, random_sign=True),
    PolicyOperation("brightness", 1, 0.9, random_sign=True),
    PolicyOperation("sharpness", 1, 0.9, random_sign=True),
    PolicyOperation("shear_x", span=0.3, random_sign=True),
    PolicyOperation("shear_y", span=0.3, random_sign=True),
    PolicyOperation("translate_x", span=0.45, random_sign=True),
    PolicyOperation("translate_y", span=0.45, random_sign=True),
)

POLICIES: dict[str, tuple[PolicyOperation, ...]] = {
    "rand_augment": _PAPER,
    "rand_augment_increasing": _INCREASING,
}
"""The operations of each policy, by its name; all operations of a policy are equally probable."""


def apply_policy(image: Array, key: Array, augmentation: Augmentation, fill: Array) -> Array:
    """Applies the declared policy to a picture (H, W, C) uint8.

    Pixels that come from outside the picture get the colour `fill` (C,) uint8. As in Pillow, the
    operation `color` does not change gray pictures.
    """

    def layer(number: Array, image: Array) -> Array:
        drawn = draw_operation(jax.random.fold_in(key, number), augmentation)
        changed = apply_operation(image, drawn.operation, drawn.amount, fill)
        return jnp.where(drawn.applied, changed, image)

    return jax.lax.fori_loop(0, augmentation.policy_layers, layer, image)


def draw_operation(key: Array, augmentation: Augmentation) -> DrawnOperation:
    """Draws an operation of the declared policy and its amount."""
    policy = POLICIES[augmentation.policy]
    index_key, strength_key, sign_key, applied_key = jax.random.split(key, 4)
    index = jax.random.randint(index_key, (), 0, len(policy))
    noise = augmentation.policy_magnitude_std * jax.random.normal(strength_key)
    strength = jnp.clip((augmentation.policy_magnitude + noise) / 10, 0, 1)
    sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
    columns = {
        "operation": np.array([OPERATIONS.index(row.operation) for row in policy], np.int32),
        "start": np.array([row.start for row in policy], np.float32),
        "span": np.array([row.span for row in policy], np.float32),
        "random_sign": np.array([row.random_sign for row in policy]),
        "truncated": np.array([row.truncated for row in policy]),
    }
    chosen = {name: jnp.asarray(column)[index] for name, column in columns.items()}
    change = chosen["span"] * strength
    change = jnp.where(chosen["truncated"], jnp.trunc(change), change)
    amount = chosen["start"] + jnp.where(chosen["random_sign"], sign, 1) * change
    applied = jax.random.uniform(applied_key) < augmentation.policy_probability
    return DrawnOperation(chosen["operation"], amount, applied)
