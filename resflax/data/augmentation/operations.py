"""The operations of augmentation policies on one uint8 picture.

The results differ from Pillow's by at most one level. All pictures of a batch run through the same
program, whichever operation each has. So the operations share a few passes: point operations are
tables of 256 levels, and geometric operations are affine maps of coordinates.
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


def apply_operation(image: Array, operation: Array, amount: Array, fill: Array) -> Array:
    """Applies one of `OPERATIONS` to a picture.

    Args:
      image: (H, W, C) uint8 with 1 or 3 channels.
      operation: () int32, the index of the operation in `OPERATIONS`.
      amount: () float32. It is the number of bits that are kept (posterize), the threshold
        (solarize), the summand (solarize_add), a factor, where 1 changes nothing (brightness,
        contrast, color, sharpness), degrees (rotate), the slope (shears), or a share of the side
        (translations).
      fill: (C,) uint8, the colour of pixels that come from outside the picture.
    """
    table = jnp.stack(level_tables(image, amount))[jnp.minimum(operation, len(POINT) - 1)]
    channels = jnp.arange(image.shape[-1])
    results = (
        table[channels, image.astype(jnp.int32)].astype(jnp.uint8),
        warp(image, *_affine_map(operation, amount, *image.shape[:2]), fill),
        blend(luma(image), image, amount),
        blend(smooth(image), image, amount),
    )
    passes = [0] * len(POINT) + [1] * len(GEOMETRIC) + [2, 3]  # index in `results`, by operation
    wanted = jnp.array(passes)[operation]
    return jnp.select([wanted == number for number in range(4)], results)


def level_tables(image: Array, amount: Array) -> list[Array]:
    """A table (C, 256) int32 for each operation in `POINT`: the new level of each old level."""
    levels = jnp.arange(256, dtype=jnp.int32)
    counts = jax.vmap(lambda channel: jnp.bincount(channel, length=256), -1)(
        image.reshape(-1, image.shape[-1])
    ).astype(jnp.int32)
    whole_amount = jnp.floor(amount).astype(jnp.int32)
    kept_bits = 256 - (1 << jnp.clip(8 - whole_amount, 0, 8))
    mean_luma = jnp.floor(jnp.mean(luma(image).astype(jnp.float32)) + 0.5)
    tables = (
        levels,
        stretched_levels(counts),
        equalized_levels(counts),
        255 - levels,
        levels & kept_bits,
        jnp.where(levels < amount, levels, 255 - levels),
        jnp.where(levels < 128, jnp.minimum(255, levels + whole_amount), levels),
        blend(jnp.zeros_like(levels), levels, amount),
        blend(mean_luma, levels, amount),
    )
    return [jnp.broadcast_to(table, counts.shape).astype(jnp.int32) for table in tables]


def stretched_levels(counts: Array) -> Array:
    """Stretches the range of levels that occur, so that it becomes 0 to 255.

    `counts` (C, 256) says how often each level occurs. Returns the new levels (C, 256).
    """
    levels, occurs = jnp.arange(256), counts > 0
    low = jnp.argmax(occurs, -1, keepdims=True)
    high = 255 - jnp.argmax(occurs[:, ::-1], -1, keepdims=True)
    scaled = 255 * (levels - low) // jnp.maximum(high - low, 1)
    return jnp.where(high > low, jnp.clip(scaled, 0, 255), levels)


def equalized_levels(counts: Array) -> Array:
    """Spreads the levels so that each occurs about equally often.

    `counts` (C, 256) says how often each level occurs. Returns the new levels (C, 256).
    """
    levels = jnp.arange(256)
    brightest = 255 - jnp.argmax(counts[:, ::-1] > 0, -1, keepdims=True)
    total = jnp.sum(counts, -1, keepdims=True)
    step = (total - jnp.take_along_axis(counts, brightest, -1)) // 255
    darker = jnp.cumsum(counts, -1) - counts
    spread = (step // 2 + darker) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(spread, 255), levels)


def luma(image: Array) -> Array:
    """Converts (H, W, C) uint8 to gray (H, W, 1) uint8, with the weights of ITU-R 601."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = jnp.split(image.astype(jnp.int32), 3, -1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(jnp.uint8)


def blend(degenerate: Array, image: Array, amount: Array) -> Array:
    """degenerate + amount * (image - degenerate), clipped to 0 to 255 and rounded down to uint8.

    `degenerate` is Pillow's name (in `ImageEnhance`) for the picture that amount 0 gives.
    """
    degenerate, image = degenerate.astype(jnp.float32), image.astype(jnp.float32)
    return jnp.clip(degenerate + amount * (image - degenerate), 0, 255).astype(jnp.uint8)


def smooth(image: Array) -> Array:
    """Filters (H, W, C) uint8 by (1 1 1, 1 5 1, 1 1 1) / 13; pixels on the border stay the same."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    wide = image.astype(jnp.int32)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * wide[1:-1, 1:-1]
    return image.at[1:-1, 1:-1].set(((2 * total + 13) // 26).astype(jnp.uint8))


def _affine_map(operation: Array, amount: Array, height: int, width: int) -> tuple[Array, Array]:
    """The matrix m (2, 2) and offset b (2,) of the map m x + b from a pixel to its source.

    x is the pixel's (column, row).
    """
    geometric = operation - len(POINT)
    angle = jnp.deg2rad(jnp.where(geometric == 0, amount, 0))
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    shear_x, shear_y, move_x, move_y = (jnp.where(geometric == n, amount, 0) for n in (1, 2, 3, 4))
    matrix = jnp.array([[cos, shear_x - sin], [shear_y + sin, cos]])
    centre = jnp.array([width, height], jnp.float32) / 2
    turned = jnp.where(geometric == 0, centre - matrix @ centre, 0)
    return matrix, turned + jnp.array([move_x * width, move_y * height])


def warp(image: Array, matrix: Array, offset: Array, fill: Array) -> Array:
    """Moves the pixels of a picture: each is interpolated bilinearly at its source.

    Args:
      image: (H, W, C) uint8.
      matrix: m (2, 2) of the map m x + b from a pixel's x = (column, row) to its source.
      offset: b (2,) of that map.
      fill: (C,) uint8, the colour of pixels whose source is outside the picture.

    Returns:
      (H, W, C) uint8.
    """
    height, width, _ = image.shape
    columns, rows = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
    x = matrix[0, 0] * columns + matrix[0, 1] * rows + offset[0]
    y = matrix[1, 0] * columns + matrix[1, 1] * rows + offset[1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    left, top = jnp.floor(x - 0.5), jnp.floor(y - 0.5)
    right_share, lower_share = (x - 0.5 - left)[..., None], (y - 0.5 - top)[..., None]

    def pixels_at(row: Array, column: Array) -> Array:
        row = jnp.clip(row.astype(jnp.int32), 0, height - 1)
        column = jnp.clip(column.astype(jnp.int32), 0, width - 1)
        return image[row, column].astype(jnp.float32)

    upper = pixels_at(top, left) * (1 - right_share) + pixels_at(top, left + 1) * right_share
    lower = (
        pixels_at(top + 1, left) * (1 - right_share) + pixels_at(top + 1, left + 1) * right_share
    )
    interpolated = jnp.round(upper * (1 - lower_share) + lower * lower_share).astype(jnp.uint8)
    return jnp.where(inside[..., None], interpolated, fill)
