"""Decodes pictures and makes square crops of the size that the network sees."""

import math

import numpy as np

from resflax.data.draws import Doubles
from resflax.data.pictures.decoding import decode, picture_size
from resflax.data.pictures.resizing import center_crop, copy_into, resize_fast, resize_shorter
from resflax.declarations.data import Streamed

_ATTEMPTS = 10
_AREAS = 0.08, 1.0  # least and greatest area, as a share of the picture's
_RATIOS = 3 / 4, 4 / 3  # least and greatest ratio of width to height


def random_square(
    encoded: bytes,
    data: Streamed,
    side: int,
    doubles: Doubles,
    into: np.ndarray | None = None,
) -> np.ndarray:
    """Decodes a picture and crops it for training.

    Args:
      encoded: the encoded picture.
      data: the declaration; its `crop` says how the picture is cropped.
      side: height and width of the crop.
      doubles: the source of everything that is random.
      into: (side, side, 3) uint8, the array that the pixels are written to; None: a new array.

    Returns:
      The crop (side, side, 3) uint8, which is `into` if that is given.

    Raises:
      BadPicture: if the picture cannot be decoded.
    """
    if data.crop == "center":
        return central_square(encoded, data, side, into)
    if data.crop == "scale":
        return _scaled_square(encoded, data, side, doubles, into)
    return _random_resized_square(encoded, data, side, doubles, into)


def central_square(
    encoded: bytes, data: Streamed, side: int, into: np.ndarray | None = None
) -> np.ndarray:
    """The centre (side, side, 3) uint8 of a picture, after its shorter side was resized.

    For crops of `data.image_size` the shorter side becomes `data.test_shorter_side`. At another
    `side` it changes in proportion, so that the crop shows the same part of the picture. The pixels
    are written to `into` if that is given. Raises `BadPicture` if the picture cannot be decoded.
    """
    shorter_side = _in_proportion(data.test_shorter_side, data, side)
    image = _decode(encoded, data, shorter_side)
    resized = resize_shorter(image, shorter_side, data.resize)
    return _copied(center_crop(resized, side, side, data.resize), into)


def random_box(height: int, width: int, doubles: Doubles) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of a `random_resized` crop (Szegedy et al. 2015, section 6).

    The area is uniform between 8 and 100 % of the picture. The ratio of width to height is between
    3/4 and 4/3, and its logarithm is uniform. If ten boxes in a row do not fit into the picture,
    the result is the largest box in the centre with a ratio in these bounds, as in torchvision.
    """
    drawn = iter(doubles.draw(4 * _ATTEMPTS))
    for area, ratio, down, right in zip(drawn, drawn, drawn, drawn, strict=True):
        target = height * width * (_AREAS[0] + area * (_AREAS[1] - _AREAS[0]))
        low, high = (math.log(bound) for bound in _RATIOS)
        proportion = math.exp(low + ratio * (high - low))
        columns, rows = round(math.sqrt(target * proportion)), round(math.sqrt(target / proportion))
        if 0 < columns <= width and 0 < rows <= height:
            top, left = int(down * (height - rows + 1)), int(right * (width - columns + 1))
            return top, left, rows, columns
    rows = min(height, max(1, round(width / _RATIOS[0])))
    columns = min(width, max(1, round(height * _RATIOS[1])))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _random_resized_square(
    encoded: bytes,
    data: Streamed,
    side: int,
    doubles: Doubles,
    into: np.ndarray | None,
) -> np.ndarray:
    height, width = picture_size(encoded)
    top, left, rows, columns = random_box(height, width, doubles)
    # The picture may be decoded at a smaller size, as long as the box is not enlarged afterwards.
    shorter_side = math.ceil(side * min(height, width) / min(rows, columns))
    image = _decode(encoded, data, shorter_side)
    if image.shape[:2] != (height, width):
        row_scale, column_scale = image.shape[0] / height, image.shape[1] / width
        top, left = round(top * row_scale), round(left * column_scale)
        rows = max(1, min(round(rows * row_scale), image.shape[0] - top))
        columns = max(1, min(round(columns * column_scale), image.shape[1] - left))
    box = image[top : top + rows, left : left + columns]
    return resize_fast(box, side, side, data.resize, into)


def _scaled_square(
    encoded: bytes,
    data: Streamed,
    side: int,
    doubles: Doubles,
    into: np.ndarray | None,
) -> np.ndarray:
    """A crop at a random place of the picture, resized to a random shorter side."""
    low, high = data.shorter_side
    at_image_size = low + int(doubles.draw(1)[0] * (high - low + 1))
    shorter_side = _in_proportion(at_image_size, data, side)
    image = _decode(encoded, data, shorter_side)
    image = _resized_for_training(image, data, shorter_side)
    top, left = (
        int(share * (length - side + 1))
        for share, length in zip(doubles.draw(2), image.shape[:2], strict=True)
    )
    return _copied(image[top : top + side, left : left + side], into)


def _resized_for_training(image: np.ndarray, data: Streamed, shorter_side: int) -> np.ndarray:
    if data.resize != "opencv":
        return resize_shorter(image, shorter_side, data.resize)
    scale = shorter_side / min(image.shape[:2])
    rows, columns = (max(shorter_side, round(length * scale)) for length in image.shape[:2])
    return resize_fast(image, rows, columns)


def _decode(encoded: bytes, data: Streamed, shorter_side: int) -> np.ndarray:
    """Decodes a picture whose shorter side must have this length at least, or its whole length.

    The next picture that this thread decodes overwrites the pixels.
    """
    least = shorter_side if data.resize == "opencv" else None
    return decode(encoded, shorter_side=least, reuse_memory=True)


def _in_proportion(shorter_side: int, data: Streamed, side: int) -> int:
    """The shorter side for crops of size `side`, if `shorter_side` is for `data.image_size`."""
    return max(side, round(shorter_side * side / data.image_size))


def _copied(pixels: np.ndarray, into: np.ndarray | None) -> np.ndarray:
    """Copies pixels to `into` or a new array, because the next picture overwrites their memory."""
    return pixels.copy() if into is None else copy_into(pixels, into)
