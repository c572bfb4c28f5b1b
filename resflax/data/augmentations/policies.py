"""RandAugment (Cubuk et al. 2020): a few operations in a row, drawn from a table, all as strong."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resflax.data.augmentations.operations import OPERATIONS, operate
from resflax.declarations.augmentation import Augmentation

Array = jax.Array


class Row(NamedTuple):
    """An operation and its amount at a strength from 0 to 1: start + span * strength."""

    operation: str
    start: float = 0.0
    span: float = 0.0
    signed: bool = False
    """Whether the span counts from the start upwards or downwards by chance."""
    whole: bool = False
    """Whether span * strength is cut to a whole number."""


# Translations of 150 pixels are for pictures of 331 (Cubuk et al. 2019).
_PAPER = (
    Row("identity"),
    Row("auto_contrast"),
    Row("equalize"),
    Row("rotate", span=30, signed=True),
    Row("solarize", span=256, whole=True),
    Row("color", 0.1, 1.8),
    Row("posterize", 4, 4, whole=True),
    Row("contrast", 0.1, 1.8),
    Row("brightness", 0.1, 1.8),
    Row("sharpness", 0.1, 1.8),
    Row("shear_x", span=0.3, signed=True),
    Row("shear_y", span=0.3, signed=True),
    Row("translate_x", span=150 / 331, signed=True),
    Row("translate_y", span=150 / 331, signed=True),
)

# timm/data/auto_augment.py, `_RAND_INCREASING_TRANSFORMS`.
_INCREASING = (
    Row("auto_contrast"),
    Row("equalize"),
    Row("invert"),
    Row("rotate", span=30, signed=True),
    Row("posterize", 4, -4, whole=True),
    Row("solarize", 256, -256, whole=True),
    Row("solarize_add", span=110, whole=True),
    Row("color", 1, 0.9, signed=True),
    Row("contrast", 1, 0.9, signed=True),
    Row("brightness", 1, 0.9, signed=True),
    Row("sharpness", 1, 0.9, signed=True),
    Row("shear_x", span=0.3, signed=True),
    Row("shear_y", span=0.3, signed=True),
    Row("translate_x", span=0.45, signed=True),
    Row("translate_y", span=0.45, signed=True),
)

TABLES: dict[str, tuple[Row, ...]] = {
    "rand_augment": _PAPER,
    "rand_augment_increasing": _INCREASING,
}


def apply_policy(image: Array, key: Array, augmentation: Augmentation, fill: Array) -> Array:
    """Does the declared policy's operations to (H, W, C) uint8; `fill` (C,) is outside of it.

    On gray pictures `color` changes nothing, as in Pillow.
    """

    def layer(number: Array, image: Array) -> Array:
        operation, amount, done = draw(jax.random.fold_in(key, number), augmentation)
        return jnp.where(done, operate(image, operation, amount, fill), image)

    return jax.lax.fori_loop(0, augmentation.policy_layers, layer, image)


def draw(key: Array, augmentation: Augmentation) -> tuple[Array, Array, Array]:
    """An operation () int32 of `OPERATIONS`, its amount () float32, and whether it is done."""
    rows = TABLES[augmentation.policy]
    row_key, strength_key, sign_key, done_key = jax.random.split(key, 4)
    row = jax.random.randint(row_key, (), 0, len(rows))
    noise = augmentation.policy_magnitude_std * jax.random.normal(strength_key)
    strength = jnp.clip((augmentation.policy_magnitude + noise) / 10, 0, 1)
    sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0)
    columns = {
        "operation": np.array([OPERATIONS.index(row.operation) for row in rows], np.int32),
        "start": np.array([row.start for row in rows], np.float32),
        "span": np.array([row.span for row in rows], np.float32),
        "signed": np.array([row.signed for row in rows]),
        "whole": np.array([row.whole for row in rows]),
    }
    chosen = {name: jnp.asarray(column)[row] for name, column in columns.items()}
    change = chosen["span"] * strength
    change = jnp.where(chosen["whole"], jnp.trunc(change), change)
    amount = chosen["start"] + jnp.where(chosen["signed"], sign, 1) * change
    done = jax.random.uniform(done_key) < augmentation.policy_probability
    return chosen["operation"], amount, done
