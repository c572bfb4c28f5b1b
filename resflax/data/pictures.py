"""Decoding of encoded pictures and resizing of their pixels: uint8 (H, W, C), on the host.

JPEGs are decoded by libjpeg-turbo (simplejpeg). Pillow decodes all other formats, and the JPEGs
that simplejpeg refuses. Both give the same pixels. `decode` does not apply the EXIF orientation,
because the code that produced the papers' errors did not; `upright` applies it. All of these
libraries release the interpreter's lock, so that several threads can decode at the same time.
"""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from resflax.errors import UsageError
from resflax.text import one_line

T = TypeVar("T")

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's modes for pictures with 1, 3 and 4 channels."""

MOST_PIXELS = 2**27
"""The most pixels that a picture may have. A larger one is refused as damaged, because a few wrong
bytes in a header can ask for more memory than the machine has."""

_COLORSPACES = {1: "GRAY", 3: "RGB", 4: "RGBA"}  # simplejpeg's names by number of channels

_PILLOW_LIMITS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
_pillow_limit_lock = threading.Lock()
_of_thread = threading.local()


class BadPicture(ValueError):  # noqa: N818
    """The bytes are not a picture, or the picture is damaged. The message is one line."""


def picture_size(encoded: bytes) -> tuple[int, int]:
    """(height, width) of a picture, read from its header alone. Raises `BadPicture`."""
    header = _jpeg_header(encoded)
    return header[:2] if header is not None else _read_by_pillow(encoded, _size_by_pillow)


def decode(
    encoded: bytes,
    channels: int = 3,
    shorter_side: int | None = None,
    *,
    reuse_memory: bool = False,
) -> np.ndarray:
    """The pixels (H, W, channels) uint8 of an encoded picture.

    Grayscale, CMYK, palettes and 16-bit values are converted. Transparency is dropped unless
    `channels` is 4.

    Args:
      encoded: a JPEG, a PNG or any other format that Pillow reads.
      channels: 1, 3 or 4.
      shorter_side: the least length, in pixels, that the caller needs the shorter side to have. A
        large JPEG is then decoded at 4/8 of its size or fewer eighths, which saves much work.
      reuse_memory: whether the pixels may be overwritten when this thread decodes its next picture,
        which saves the time that new memory costs.

    Raises:
      BadPicture: if `encoded` is not a picture, or is cut off, damaged or larger than MOST_PIXELS.
    """
    header = _jpeg_header(encoded)
    if header is not None and header[2] != "CMYK":  # simplejpeg does not undo inverted inks
        height, width, _ = header
        # Decoding at 7/8 to 5/8 takes longer than decoding the whole picture.
        least = 0
        if shorter_side is not None and 2 * shorter_side <= min(height, width):
            least = shorter_side
        try:
            pixels: np.ndarray = simplejpeg.decode_jpeg(
                encoded,
                _COLORSPACES[channels],
                min_height=least,
                min_width=least,
                buffer=_memory(height * width * channels) if reuse_memory else None,
            )
        except (ValueError, KeyError):
            pass  # Pillow ignores harmless mistakes, such as bytes after the end
        else:
            return pixels
    return _read_by_pillow(encoded, lambda image: _decode_by_pillow(image, channels))


def upright(pixels: np.ndarray, encoded: bytes) -> np.ndarray:
    """Turns and mirrors the decoded pixels (H, W, C) of a picture as its EXIF orientation says.

    An orientation that is missing, unknown or cannot be read changes nothing.
    """
    try:
        orientation = _read_by_pillow(encoded, _orientation)
    except Exception:  # of many types; the pixels were decoded, so only the EXIF data is damaged
        return pixels
    if orientation not in range(2, 9):
        return pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.getexif()[ExifTags.Base.Orientation] = orientation
    turned = np.asarray(ImageOps.exif_transpose(image))
    return turned.reshape(*turned.shape[:2], pixels.shape[2])


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation that is still to be applied after decoding; 1 to 8 if it is valid."""
    if image.format == "TIFF":  # Pillow turns these while it decodes them
        return 1
    return image.getexif().get(ExifTags.Base.Orientation)


def _memory(size: int) -> np.ndarray:
    """An array of at least `size` bytes; a thread gets the same one again if it is large enough."""
    memory: np.ndarray | None = getattr(_of_thread, "memory", None)
    if memory is None or memory.size < size:
        memory = _of_thread.memory = np.empty(size, np.uint8)
    return memory


def _jpeg_header(encoded: bytes) -> tuple[int, int, str] | None:
    """Height, width and color space of a JPEG; None for other formats and unreadable headers."""
    if not encoded.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded, strict=False)
    except (ValueError, KeyError):  # KeyError for an unknown subsampling of colors
        return None
    _check_size(height, width)
    return height, width, colorspace


def _read_by_pillow(encoded: bytes, read: Callable[[Image.Image], T]) -> T:
    """Opens a picture with Pillow and returns what `read` returns for it.

    Pillow has its own limit, which is below MOST_PIXELS: it warns of pictures above the limit, and
    refuses those above twice the limit. After a refusal, or a warning that is raised as an error,
    the picture is read again with the limit lifted.
    """
    try:
        return read(_open_by_pillow(encoded))
    except _PILLOW_LIMITS:
        with _pillow_limit_lifted():
            return read(_open_by_pillow(encoded))


@contextlib.contextmanager
def _pillow_limit_lifted() -> Iterator[None]:
    # The limit belongs to the whole process, so one thread at a time may change it. The warning's
    # filter is left alone: if another thread changes it meanwhile, one would restore an old state.
    with _pillow_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open_by_pillow(encoded: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded))
    except _PILLOW_LIMITS:
        raise
    except UnidentifiedImageError:  # its text names an object in memory, which tells a user nothing
        raise BadPicture("not a picture in a known format") from None
    except Exception as error:  # of many types, for damaged files
        raise BadPicture(f"not a picture: {one_line(error, 100)}") from None


def _size_by_pillow(image: Image.Image) -> tuple[int, int]:
    _check_size(image.height, image.width)
    return image.height, image.width


def _decode_by_pillow(image: Image.Image, channels: int) -> np.ndarray:
    _check_size(image.height, image.width)
    try:
        if image.mode.startswith("I"):  # 16-bit values, which Pillow would cut off at 255
            values = np.asarray(image) >> 8
            image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        elif image.mode == "P":  # Pillow wants RGBA if the palette has transparent colors
            image = image.convert("RGBA")
        pixels = np.asarray(image.convert(MODES[channels]))
    except _PILLOW_LIMITS:
        raise
    except Exception as error:
        raise BadPicture(f"damaged: {one_line(error, 100)}") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _check_size(height: int, width: int) -> None:
    if not 0 < height * width <= MOST_PIXELS:
        raise BadPicture(
            f"{height}x{width} pixels; there must be at least 1, at most {MOST_PIXELS}"
        )


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes (H, W, C) uint8 to (height, width, C).

    If neither side grows, each new pixel is the mean of the area that it covers, which avoids
    aliasing. Otherwise pixels are interpolated linearly.
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
    """Resizes as `resize` does, but interpolates linearly unless a side shrinks to half or less.

    Interpolation takes a third of the time. Each new pixel is then computed from the nearest four,
    which causes a little aliasing. If `into` (height, width, C) is given, the pixels are written
    there and `into` is returned.
    """
    if 2 * height <= image.shape[0] or 2 * width <= image.shape[1]:
        return copy_into(resize(image, height, width), into)
    resized = cv2.resize(image, (width, height), dst=into, interpolation=cv2.INTER_LINEAR)
    return resized.reshape(height, width, image.shape[2]) if into is None else into


def copy_into(image: np.ndarray, into: np.ndarray | None) -> np.ndarray:
    """Copies the pixels to `into` and returns it; returns `image` itself if `into` is None."""
    if into is None:
        return image
    into[...] = image
    return into


def resize_shorter(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes (H, W, C) so that the shorter side has `size` pixels; the longer is rounded down."""
    height, width = image.shape[:2]
    if height <= width:
        return resize(image, size, max(size, size * width // height))
    return resize(image, max(size, size * height // width), size)


def center_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A view of the centre (height, width, C). Raises `UsageError` if the picture is smaller."""
    if height > image.shape[0] or width > image.shape[1]:
        raise UsageError(
            f"a crop of {height}x{width} does not fit into a picture of "
            f"{image.shape[0]}x{image.shape[1]}"
        )
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
