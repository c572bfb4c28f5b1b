"""Resizing and cropping of pixels: uint8 (H, W, C), on the host.

By default OpenCV resizes, which is ten times as fast as Pillow. The other ways are those of
torchvision and timm: Pillow with antialiasing, and torchvision's rounding of the centre.
"""

import cv2
import numpy as np
from PIL import Image

from resflax.declarations.data import Resizing
from resflax.errors import UsageError

_FILTERS = {
    "pillow_bilinear": Image.Resampling.BILINEAR,
    "pillow_bicubic": Image.Resampling.BICUBIC,
}


def resize(image: np.ndarray, height: int, width: int, by: Resizing = "opencv") -> np.ndarray:
    """Resizes (H, W, C) uint8 to (height, width, C).

    With OpenCV, each new pixel is the mean of the area that it covers if neither side grows, which
    avoids aliasing; otherwise pixels are interpolated linearly. With Pillow, each new pixel is a
    weighted mean, with the filter widened by as much as the picture shrinks.
    """
    if image.shape[:2] == (height, width):
        return image
    if by != "opencv":
        pillow = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        resized = np.asarray(pillow.resize((width, height), _FILTERS[by]))
        return resized.reshape(height, width, image.shape[2])
    smaller = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=method)
    return resized.reshape(height, width, image.shape[2])  # OpenCV drops a single channel


def resize_fast(
    image: np.ndarray,
    height: int,
    width: int,
    by: Resizing = "opencv",
    into: np.ndarray | None = None,
) -> np.ndarray:
    """Resizes for training, as `resize` does, except that OpenCV often interpolates linearly.

    It does so unless a side shrinks to half or less, and takes a third of the time. Each new pixel
    is then computed from the nearest four, which causes a little aliasing. If `into`
    (height, width, C) is given, the pixels are written there and `into` is returned.
    """
    if by != "opencv" or 2 * height <= image.shape[0] or 2 * width <= image.shape[1]:
        return copy_into(resize(image, height, width, by), into)
    resized = cv2.resize(image, (width, height), dst=into, interpolation=cv2.INTER_LINEAR)
    return resized.reshape(height, width, image.shape[2]) if into is None else into


def resize_shorter(image: np.ndarray, size: int, by: Resizing = "opencv") -> np.ndarray:
    """Resizes (H, W, C) so that the shorter side has `size` pixels; the longer is rounded down."""
    height, width = image.shape[:2]
    if height <= width:
        return resize(image, size, max(size, size * width // height), by)
    return resize(image, max(size, size * height // width), size, by)


def center_crop(image: np.ndarray, height: int, width: int, by: Resizing = "opencv") -> np.ndarray:
    """A view of the centre (height, width, C). Raises `UsageError` if the picture is smaller.

    Where one side has an odd number of pixels more than the crop, the crop is nearer to the top or
    left by half a pixel. With Pillow's ways of resizing, it is nearer to the bottom or right where
    torchvision's CenterCrop rounds half a pixel up, to the next even number.
    """
    if height > image.shape[0] or width > image.shape[1]:
        raise UsageError(
            f"a crop of {height}x{width} does not fit into a picture of "
            f"{image.shape[0]}x{image.shape[1]}"
        )
    rows, columns = image.shape[0] - height, image.shape[1] - width
    top, left = (
        (rows // 2, columns // 2) if by == "opencv" else (round(rows / 2), round(columns / 2))
    )
    return image[top : top + height, left : left + width]


def copy_into(image: np.ndarray, into: np.ndarray | None) -> np.ndarray:
    """Copies the pixels to `into` and returns it; returns `image` itself if `into` is None."""
    if into is None:
        return image
    into[...] = image
    return into
