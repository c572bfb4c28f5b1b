"""Decoding by Pillow: all formats but most JPEGs, and pictures above Pillow's own limit of size."""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from resflax.data.pictures.bad_picture import BadPicture, check_size
from resflax.data.pictures.gray_levels import (
    bits_of_values,
    check_that_all_bits_are_used,
    deep_gray_levels,
)
from resflax.data.pictures.orientation import (
    UPRIGHT,
    jpeg_orientation,
    orientation_in,
    png_orientation,
    turn,
    turn_size,
)
from resflax.data.pictures.tiff_kinds import check_tiff, unloaded_tiff, unopened_tiff
from resflax.text import one_line

T = TypeVar("T")

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's modes for pictures with 1, 3 and 4 channels."""

# Modes that Pillow cannot convert to every mode in MODES, or not well, and the mode in between.
_FIRST = {"P": "RGBA", "La": "LA", "RGBa": "RGBA", "LAB": "RGB"}

# Formats that Pillow may lack, by the bytes at the start of a file or after its first four.
_UNREAD = {
    b"ftypheic": "HEIC",
    b"ftypheix": "HEIC",
    b"ftypmif1": "HEIF",
    b"ftypavif": "AVIF",
    b"JXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}

_PILLOW_LIMITS = (Image.DecompressionBombWarning, Image.DecompressionBombError)
_pillow_limit_lock = threading.Lock()


def size_by_pillow(encoded: bytes) -> tuple[int, int]:
    """(height, width) of a picture that is turned upright. Raises `BadPicture`."""

    def read(image: Image.Image) -> tuple[int, int]:
        check_size(image.height, image.width)
        return turn_size(image.height, image.width, _orientation(image, encoded))

    return _read(encoded, read)


def decode_by_pillow(encoded: bytes, channels: int) -> np.ndarray:
    """The pixels (H, W, channels) uint8 of a picture, turned upright. Raises `BadPicture`."""

    def read(image: Image.Image) -> np.ndarray:
        check_size(image.height, image.width)
        try:
            pixels = _pixels(image, encoded, MODES[channels])
        except (BadPicture, *_PILLOW_LIMITS):
            raise
        except Exception as error:  # of many types, for damaged files
            kind = unloaded_tiff(image, error)
            raise BadPicture(kind or f"damaged: {one_line(error, 100)}") from None
        return turn(pixels, _orientation(image, encoded))

    return _read(encoded, read)


def _pixels(image: Image.Image, encoded: bytes, mode: str) -> np.ndarray:
    """The pixels (H, W, C) uint8 of a picture in one of Pillow's modes, as they are stored."""
    if image.format == "TIFF":
        check_tiff(image, encoded)
    stored_bits = bits_of_values(image, encoded)
    image.load()
    levels = deep_gray_levels(image)
    if levels is not None:
        image = Image.fromarray(levels)
    elif stored_bits == 16:
        check_that_all_bits_are_used(image)
    if image.mode in _FIRST:
        image = image.convert(_FIRST[image.mode])
    pixels = np.asarray(image.convert(mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _orientation(image: Image.Image, encoded: bytes) -> int:
    """The orientation that is still to be applied to what Pillow decodes."""
    if image.format == "TIFF":  # Pillow turns these while it decodes them
        return UPRIGHT
    if image.format in ("JPEG", "MPO"):
        return jpeg_orientation(encoded)
    if image.format == "PNG":
        return png_orientation(encoded)
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    return orientation_in(
        exif if isinstance(exif, bytes) else b"", xmp if isinstance(xmp, bytes) else b""
    )


def _read(encoded: bytes, read: Callable[[Image.Image], T]) -> T:
    """Opens a picture with Pillow and returns what `read` returns for it.

    Pillow has its own limit, which is below MOST_PIXELS: it warns of pictures above the limit, and
    refuses those above twice the limit. After a refusal, or a warning that is raised as an error,
    the picture is read again with the limit lifted.
    """
    try:
        return read(_open(encoded))
    except _PILLOW_LIMITS:
        with _pillow_limit_lifted():
            return read(_open(encoded))


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


def _open(encoded: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded))
    except _PILLOW_LIMITS:
        raise
    except UnidentifiedImageError:  # its text names an object in memory, which tells a user nothing
        raise BadPicture(_unopened(encoded)) from None
    except Exception as error:  # of many types, for damaged files
        raise BadPicture(f"not a picture: {one_line(error, 100)}") from None


def _unopened(encoded: bytes) -> str:
    """Why Pillow cannot open a file, with the name of its format where a user may not know it."""
    if encoded.startswith(b"\xff\xd8\xff"):
        return "a JPEG that is damaged, or not of 8 bits for each color; convert it to such a JPEG"
    for start, name in _UNREAD.items():
        if encoded.startswith(start) or encoded.startswith(start, 4):
            return f"{name} cannot be decoded; convert it to JPEG"
    return unopened_tiff(encoded) or "not a picture in a known format"
