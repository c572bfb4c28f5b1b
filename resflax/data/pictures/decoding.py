"""Decoding of encoded pictures into upright pixels: uint8 (H, W, C), on the host.

JPEGs are decoded by libjpeg-turbo (simplejpeg). Pillow decodes all other formats, and the JPEGs
that simplejpeg refuses. Both give the same pixels. All of these libraries release the
interpreter's lock, so that several threads can decode at the same time.
"""

import threading

import numpy as np
import simplejpeg

from resflax.data.pictures.bad_picture import check_size
from resflax.data.pictures.orientation import jpeg_orientation, turn, turn_size
from resflax.data.pictures.pillow_decoding import decode_by_pillow, size_by_pillow

_COLORSPACES = {1: "GRAY", 3: "RGB", 4: "RGBA"}  # simplejpeg's names by number of channels

_of_thread = threading.local()


def picture_size(encoded: bytes) -> tuple[int, int]:
    """(height, width) of a picture that is turned upright, read from its header alone.

    Raises `BadPicture`.
    """
    header = _jpeg_header(encoded)
    if header is None:
        return size_by_pillow(encoded)
    return turn_size(*header[:2], jpeg_orientation(encoded))


def decode(
    encoded: bytes,
    channels: int = 3,
    shorter_side: int | None = None,
    *,
    reuse_memory: bool = False,
) -> np.ndarray:
    """The pixels (H, W, channels) uint8 of an encoded picture, turned as its EXIF data say.

    Grayscale, CMYK, palettes and 16-bit values are converted. Transparency is dropped unless
    `channels` is 4. Of several pictures in a file, the first is decoded. ICC profiles are ignored.

    Args:
      encoded: a JPEG, a PNG or any other format that Pillow reads.
      channels: 1, 3 or 4.
      shorter_side: the least length, in pixels, that the caller needs the shorter side to have. A
        large JPEG is then decoded at 4/8 of its size or fewer eighths, which saves much work.
      reuse_memory: whether the pixels may be overwritten when this thread decodes its next picture,
        which saves the time that new memory costs.

    Raises:
      BadPicture: if `encoded` is not a picture; if it is cut off, damaged or larger than
        MOST_PIXELS; if it is of a kind that is not supported.
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
            return turn(pixels, jpeg_orientation(encoded))
    return decode_by_pillow(encoded, channels)


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
    check_size(height, width)
    return height, width, colorspace
