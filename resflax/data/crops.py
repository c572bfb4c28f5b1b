"""Encoded pictures to squares of the size that the network sees, for training and for tests."""

import math

import numpy as np

from resflax.data.pictures import (
    center_crop,
    decode,
    place,
    resize_fast,
    resize_shorter,
    size,
)
from resflax.declarations.data import Streamed

_ATTEMPTS = 10
_AREAS = 0.08, 1.0
_RATIOS = 3 / 4, 4 / 3


def random_square(
    encoded: bytes,
    data: Streamed,
    side: int,
    draw: np.random.Generator,
    into: np.ndarray | None = None,
) -> np.ndarray:
    """A picture as `data.crop` says: (side, side, 3) uint8, `into` if that is given.

    What is random comes from `draw` alone. Raises `BadPicture`.
    """
    if data.crop == "center":
        return central_square(encoded, data, side, into)
    if data.crop == "scale":
        low, high = data.shorter_side
        shorter = low + int(draw.random() * (high - low + 1))
        return _scaled(encoded, _in_proportion(shorter, data, side), side, draw.random(2), into)
    height, width = size(encoded)
    top, left, rows, columns = random_box(height, width, draw)
    # All that is asked of the decoder is that the box itself is not enlarged.
    shorter = math.ceil(side * min(height, width) / min(rows, columns))
    image = decode(encoded, shorter=shorter, briefly=True)
    if image.shape[:2] != (height, width):
        by_rows, by_columns = image.shape[0] / height, image.shape[1] / width
        top, left = round(top * by_rows), round(left * by_columns)
        rows = max(1, min(round(rows * by_rows), image.shape[0] - top))
        columns = max(1, min(round(columns * by_columns), image.shape[1] - left))
    return resize_fast(image[top : top + rows, left : left + columns], side, side, into)


def central_square(
    encoded: bytes, data: Streamed, side: int, into: np.ndarray | None = None
) -> np.ndarray:
    """The centre (side, side, 3) of a picture whose shorter side is `test_shorter_side`.

    At another `side` than `image_size` it shows the same part. It is `into` if that is given.
    Raises `BadPicture`.
    """
    shorter = _in_proportion(data.test_shorter_side, data, side)
    image = resize_shorter(decode(encoded, shorter=shorter, briefly=True), shorter)
    return _taken_out(center_crop(image, side), into)


def _in_proportion(shorter: int, data: Streamed, side: int) -> int:
    return max(side, round(shorter * side / data.image_size))


def _scaled(
    encoded: bytes, shorter: int, side: int, where: np.ndarray, into: np.ndarray | None
) -> np.ndarray:
    """A crop at a random place of the picture with that shorter side."""
    image = decode(encoded, shorter=shorter, briefly=True)
    scale = shorter / min(image.shape[:2])
    rows, columns = (max(shorter, round(length * scale)) for length in image.shape[:2])
    image = resize_fast(image, rows, columns)
    top, left = (
        int(u * (length - side + 1)) for u, length in zip(where, image.shape[:2], strict=True)
    )
    return _taken_out(image[top : top + side, left : left + side], into)


def _taken_out(part: np.ndarray, into: np.ndarray | None) -> np.ndarray:
    """A part of pixels that may be overwritten, safe from that."""
    return part.copy() if into is None else place(part, into)


def random_box(height: int, width: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of a box for `random_resized` (Szegedy et al. 2015, section 6).

    Its area is uniform in 8 to 100 % of the picture's, the logarithm of its ratio of width to
    height in those of 3/4 to 4/3. If ten such boxes do not fit, it is the largest one in the
    centre with a ratio in those bounds, as in torchvision.
    """
    for area, ratio, down, right in draw.random((_ATTEMPTS, 4)).tolist():
        target = height * width * (_AREAS[0] + area * (_AREAS[1] - _AREAS[0]))
        low, high = (math.log(bound) for bound in _RATIOS)
        proportion = math.exp(low + ratio * (high - low))
        columns, rows = round(math.sqrt(target * proportion)), round(math.sqrt(target / proportion))
        if 0 < columns <= width and 0 < rows <= height:
            return (
                int(down * (height - rows + 1)),
                int(right * (width - columns + 1)),
                rows,
                columns,
            )
    rows = min(height, max(1, round(width / _RATIOS[0])))
    columns = min(width, max(1, round(height * _RATIOS[1])))
    return (height - rows) // 2, (width - columns) // 2, rows, columns
