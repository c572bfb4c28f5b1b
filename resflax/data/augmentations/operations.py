"""The operations of augmentation policies on one uint8 picture: Pillow's, to one level.

All pictures of a batch run through the same program, so operations are built from few passes:
point operations are tables of 256 values, geometric ones are affine maps of coordinates.
"""

import jax
import jax.numpy as jnp

Array = jax.Array

POINT = (
    "identity",
    "auto_contrast",
    "equalize",
    "invert",
    "posterize",
    "solarize",
    "solarize_add",
    "brightness",
    "contrast",
)
GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
FILTERS = ("color", "sharpness")
OPERATIONS = POINT + GEOMETRIC + FILTERS


def operate(image: Array, operation: Array, amount: Array, fill: Array) -> Array:
    """Does one of `OPERATIONS` to a picture.

    Args:
      image: (H, W, C) uint8 with 1 or 3 channels.
      operation: () int32, its place in `OPERATIONS`.
      amount: () float32: bits kept (posterize), threshold or summand (solarize, solarize_add),
        factor with 1 for no change (brightness, contrast, color, sharpness), degrees (rotate),
        slope (shears), share of the side (translations).
      fill: (C,) uint8, the colour of what comes from outside of the picture.
    """
    table = jnp.stack(tables(image, amount))[jnp.minimum(operation, len(POINT) - 1)]
    channels = jnp.arange(image.shape[-1])
    results = (
        table[channels, image.astype(jnp.int32)].astype(jnp.uint8),
        warp(image, *_matrices(operation, amount, *image.shape[:2]), fill),
        blend(luma(image), image, amount),
        blend(smooth(image), image, amount),
    )
    groups = [0] * len(POINT) + [1] * len(GEOMETRIC) + [2, 3]
    group = jnp.array(groups)[operation]
    return jnp.select([group == place for place in range(4)], results)


def tables(image: Array, amount: Array) -> list[Array]:
    """For each operation in `POINT`, what the levels of each channel become: (C, 256) int32."""
    values = jnp.arange(256, dtype=jnp.int32)
    counts = jax.vmap(lambda levels: jnp.bincount(levels, length=256), -1)(
        image.reshape(-1, image.shape[-1])
    ).astype(jnp.int32)
    bits = jnp.floor(amount).astype(jnp.int32)
    mask = 256 - (1 << jnp.clip(8 - bits, 0, 8))
    light = jnp.floor(jnp.mean(luma(image).astype(jnp.float32)) + 0.5)
    found = (
        values,
        stretched(counts),
        equalized(counts),
        255 - values,
        values & mask,
        jnp.where(values < amount, values, 255 - values),
        jnp.where(values < 128, jnp.minimum(255, values + bits), values),
        blend(jnp.zeros_like(values), values, amount),
        blend(light, values, amount),
    )
    return [jnp.broadcast_to(table, counts.shape).astype(jnp.int32) for table in found]


def stretched(counts: Array) -> Array:
    """Levels from the darkest to the brightest that occur, over 0 to 255; counts are (C, 256)."""
    values, occurs = jnp.arange(256), counts > 0
    low = jnp.argmax(occurs, -1, keepdims=True)
    high = 255 - jnp.argmax(occurs[:, ::-1], -1, keepdims=True)
    scaled = 255 * (values - low) // jnp.maximum(high - low, 1)
    return jnp.where(high > low, jnp.clip(scaled, 0, 255), values)


def equalized(counts: Array) -> Array:
    """Levels as often as each other, as far as can be; counts are (C, 256)."""
    values = jnp.arange(256)
    brightest = 255 - jnp.argmax(counts[:, ::-1] > 0, -1, keepdims=True)
    total = jnp.sum(counts, -1, keepdims=True)
    step = (total - jnp.take_along_axis(counts, brightest, -1)) // 255
    darker = jnp.cumsum(counts, -1) - counts
    spread = (step // 2 + darker) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(spread, 255), values)


def luma(image: Array) -> Array:
    """(H, W, C) uint8 to the gray picture (H, W, 1) uint8, of ITU-R 601's weights."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = jnp.split(image.astype(jnp.int32), 3, -1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(jnp.uint8)


def blend(other: Array, image: Array, amount: Array) -> Array:
    """other + amount (image - other), cut to 0 to 255 and down to whole numbers, as uint8."""
    other, image = other.astype(jnp.float32), image.astype(jnp.float32)
    return jnp.clip(other + amount * (image - other), 0, 255).astype(jnp.uint8)


def smooth(image: Array) -> Array:
    """(H, W, C) uint8 under the kernel (1 1 1, 1 5 1, 1 1 1) / 13; the border stays."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    wide = image.astype(jnp.int32)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * wide[1:-1, 1:-1]
    return image.at[1:-1, 1:-1].set(((2 * total + 13) // 26).astype(jnp.uint8))


def _matrices(operation: Array, amount: Array, height: int, width: int) -> tuple[Array, Array]:
    """Where a pixel comes from: x' = m x + b for x = (column, row), m (2, 2) and b (2,)."""
    place = operation - len(POINT)
    angle = jnp.deg2rad(jnp.where(place == 0, amount, 0))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    shear_x, shear_y, move_x, move_y = (jnp.where(place == n, amount, 0) for n in (1, 2, 3, 4))
    matrix = jnp.array([[cos, shear_x - sin], [shear_y + sin, cos]])
    centre = jnp.array([width, height], jnp.float32) / 2
    turned = jnp.where(place == 0, centre - matrix @ centre, 0)
    return matrix, turned + jnp.array([move_x * width, move_y * height])


def warp(image: Array, matrix: Array, offset: Array, fill: Array) -> Array:
    """(H, W, C) uint8 with each pixel taken from elsewhere, bilinearly; `fill` from outside."""
    height, width, _ = image.shape
    columns, rows = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
    x = matrix[0, 0] * columns + matrix[0, 1] * rows + offset[0]
    y = matrix[1, 0] * columns + matrix[1, 1] * rows + offset[1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    left, top = jnp.floor(x - 0.5), jnp.floor(y - 0.5)
    right_share, lower_share = (x - 0.5 - left)[..., None], (y - 0.5 - top)[..., None]

    def at(row: Array, column: Array) -> Array:
        row = jnp.clip(row.astype(jnp.int32), 0, height - 1)
        column = jnp.clip(column.astype(jnp.int32), 0, width - 1)
        return image[row, column].astype(jnp.float32)

    upper = at(top, left) * (1 - right_share) + at(top, left + 1) * right_share
    lower = at(top + 1, left) * (1 - right_share) + at(top + 1, left + 1) * right_share
    found = jnp.round(upper * (1 - lower_share) + lower * lower_share).astype(jnp.uint8)
    return jnp.where(inside[..., None], found, fill)
