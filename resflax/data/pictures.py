"""Encoded pictures to pixels, and pixels to another size: uint8 (H, W, C), on the host.

JPEGs take libjpeg-turbo's way (simplejpeg); all else, and what it refuses, is Pillow's. Both give
the same pixels. EXIF orientation is not applied, as in the code that the papers' errors are from.
All of it releases the interpreter's lock, so that threads decode side by side.
"""

import io
import threading

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from resflax.errors import UsageError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names, by number of channels."""

MOST_PIXELS = 2**27
"""Of one picture. A larger one is taken for damaged, since a few wrong bytes can ask for more
memory than there is."""

_COLORSPACES = {1: "GRAY", 3: "RGB", 4: "RGBA"}  # simplejpeg's

_of_thread = threading.local()

Image.MAX_IMAGE_PIXELS = None  # checked here, without its warnings
cv2.setNumThreads(1)  # whoever calls decides how many threads there are


class BadPicture(ValueError):  # noqa: N818
    """Bytes that are no picture, or one that is damaged. One line."""


def size(encoded: bytes) -> tuple[int, int]:
    """(height, width) of a picture, from its header alone. Raises `BadPicture`."""
    found = _jpeg_header(encoded)
    return found[:2] if found is not None else _pillow_size(_opened(encoded))


def decode(
    encoded: bytes, channels: int = 3, shorter: int | None = None, *, briefly: bool = False
) -> np.ndarray:
    """The pixels (H, W, channels) uint8 of an encoded picture.

    Grayscale, CMYK, palettes and 16-bit values are converted; transparency is dropped unless
    `channels` is 4.

    Args:
      encoded: a JPEG, a PNG or whatever else Pillow reads.
      channels: 1, 3 or 4.
      shorter: a JPEG may come out at a half of its size or less (eighths), as long as its shorter
        side is at least so many pixels. That saves much of the work for large pictures.
      briefly: the pixels may be overwritten when this thread decodes the next picture, which saves
        the time to get new memory.

    Raises:
      BadPicture: if that is no picture, or it is cut off or damaged, or has more than MOST_PIXELS.
    """
    found = _jpeg_header(encoded)
    if found is not None and found[2] != "CMYK":  # simplejpeg takes inverted inks as they are
        # Factors of 7/8 to 5/8 take longer than the whole picture.
        least = shorter if shorter is not None and 2 * shorter <= min(found[:2]) else 0
        try:
            pixels: np.ndarray = simplejpeg.decode_jpeg(
                encoded,
                _COLORSPACES[channels],
                min_height=least,
                min_width=least,
                buffer=_memory(found[0] * found[1] * channels) if briefly else None,
            )
        except (ValueError, KeyError):
            pass  # Pillow overlooks what does no harm, such as bytes behind the end
        else:
            return pixels
    return _decode_by_pillow(encoded, channels)


def _memory(size: int) -> np.ndarray:
    """At least so many bytes, the same ones at each call of a thread if they suffice."""
    kept: np.ndarray | None = getattr(_of_thread, "memory", None)
    if kept is None or kept.size < size:
        kept = _of_thread.memory = np.empty(size, np.uint8)
    return kept


def _jpeg_header(encoded: bytes) -> tuple[int, int, str] | None:
    """Height, width and color space of a JPEG; None if it is another kind of file."""
    if not encoded.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded, strict=False)
    except (ValueError, KeyError):  # the second for a sampling of colors that there is not
        return None
    _check_size(height, width)
    return height, width, colorspace


def _opened(encoded: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError:  # whose text names an object in memory
        raise BadPicture("no picture of a kind that is known") from None
    except Exception as error:  # of many kinds, for damaged files
        raise BadPicture(f"no picture: {' '.join(str(error).split())[:100]}") from None


def _pillow_size(image: Image.Image) -> tuple[int, int]:
    _check_size(image.height, image.width)
    return image.height, image.width


def _decode_by_pillow(encoded: bytes, channels: int) -> np.ndarray:
    image = _opened(encoded)
    _pillow_size(image)
    try:
        if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
            values = np.asarray(image) >> 8
            image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        elif image.mode == "P":  # transparent colors of a palette go by way of RGBA, says Pillow
            image = image.convert("RGBA")
        pixels = np.asarray(image.convert(MODES[channels]))
    except Exception as error:
        raise BadPicture(f"damaged: {' '.join(str(error).split())[:100]}") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _check_size(height: int, width: int) -> None:
    if not 0 < height * width <= MOST_PIXELS:
        raise BadPicture(f"{height}x{width} pixels; there may be up to {MOST_PIXELS}")


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, C) uint8 to (height, width, C).

    Smaller: each new pixel is the mean of the area that it covers, so nothing aliases. Larger in a
    direction: linear interpolation.
    """
    if image.shape[:2] == (height, width):
        return image
    smaller = height <= image.shape[0] and width <= image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=method)
    return resized.reshape(height, width, image.shape[2])  # OpenCV drops a single channel


def resize_fast(
    image: np.ndarray, height: int, width: int, into: np.ndarray | None = None
) -> np.ndarray:
    """`resize`, but linear also where the picture shrinks by less than two: a third of the time.

    Each new pixel then comes from the four nearest, so that a little aliases. If `into`
    (height, width, C) is given, the pixels are written there, and that is returned.
    """
    if 2 * height <= image.shape[0] or 2 * width <= image.shape[1]:
        return place(resize(image, height, width), into)
    resized = cv2.resize(image, (width, height), dst=into, interpolation=cv2.INTER_LINEAR)
    return resized.reshape(height, width, image.shape[2]) if into is None else into


def place(image: np.ndarray, into: np.ndarray | None) -> np.ndarray:
    """`image` itself, or `into` with its pixels."""
    if into is None:
        return image
    into[...] = image
    return into


def resize_shorter(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes so that the shorter side has `size` pixels and the shape stays; rounded down."""
    height, width = image.shape[:2]
    if height <= width:
        return resize(image, size, max(size, size * width // height))
    return resize(image, max(size, size * height // width), size)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The middle (size, size, C), a view. Raises `UsageError` if the picture is smaller."""
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise UsageError(f"a crop of {size} does not fit into a picture of {height}x{width}")
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]
