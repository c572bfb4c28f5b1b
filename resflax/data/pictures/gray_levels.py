"""The gray levels of pictures whose values have more than 8 bits.

Which values are black and white is what the file declares by its number of bits or its tags. A file
may nevertheless use fewer bits than it has, as 12-bit sensors do in files of 16 bits, and nothing
in it says so. Such pictures would come out nearly black, so they are refused.
"""

import numpy as np
from PIL import Image, ImageFile

from resflax.data.pictures.bad_picture import BadPicture
from resflax.data.pictures.tiff_kinds import ValueRange, tiff_bits, tiff_range

_16_BITS = ValueRange(0, 2**16 - 1, 16)
_FLOATS = ValueRange(0, 1, 32)


def deep_gray_levels(image: Image.Image) -> np.ndarray | None:
    """The levels (H, W) uint8 of a picture in one of Pillow's modes I, I;16 and F; None for others.

    Raises `BadPicture` if it is unknown which values are black and white, or if all values are
    below a sixteenth of the range.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return None
    if image.format == "TIFF":
        span = tiff_range(image)
    elif image.mode == "F":
        span = _FLOATS
    elif image.format in ("PNG", "PPM", "JPEG2000"):  # Pillow scales those of fewer bits to 16
        span = _16_BITS
    else:
        raise BadPicture(
            f"{image.format} pictures of more than 8 bits are not supported; convert it to 8 bits"
        )
    values = np.asarray(image)
    if image.mode == "F":
        if not np.isfinite(values).all():
            raise BadPicture("some of its values are not finite; convert it to 8 bits")
        levels = _levels_of_floats(values, span)
    else:
        if span.bits == 32 and span.low >= 0:
            values = values.astype(np.int32).view(np.uint32)  # Pillow has signed integers only
        levels = _levels_of_integers(values, span)
    return 255 - levels if span.inverted else levels


def check_that_all_bits_are_used(image: Image.Image) -> None:
    """Raises `BadPicture` if all values of a 16-bit picture are below a sixteenth of the range.

    Its values must have 8 bits now, because Pillow keeps the upper 8 of those of colours.
    """
    extrema = image.getextrema()
    ranges = extrema if isinstance(extrema[0], tuple) else (extrema,)
    bands = zip(ranges, image.getbands(), strict=True)
    # Pillow rounds some values down and others to the nearest.
    if max(greatest for (_, greatest), name in bands if name not in "Aa") <= 16:
        raise BadPicture(_too_low("16-bit values"))


def bits_of_values(image: Image.Image, encoded: bytes) -> int:
    """Number of bits of each value in the file; 8 for formats that have no more."""
    match image.format:
        case "PNG":
            return encoded[24]  # in the header, IHDR
        case "TIFF":
            return tiff_bits(image)
        case "SGI":
            return 8 * encoded[3]
        case "PPM":
            # The decoder's arguments end with the value that is white, if it is not 255.
            tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
            deep = any(isinstance(args, tuple) and args[-1] == 65535 for *_, args in tiles)
            return 16 if deep else 8
        case "JPEG2000":
            start = encoded.find(b"\xff\x4f\xff\x51")  # SOC and SIZ; 38 bytes later: Ssiz
            return (encoded[start + 42] & 127) + 1 if start >= 0 else 8
    return 8


def _levels_of_floats(values: np.ndarray, span: ValueRange) -> np.ndarray:
    if span.declared:
        return _scaled(values, span)
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        raise BadPicture(
            f"its values are floats from {low:g} to {high:g}, and it does not say which of them "
            "are black and white; scale them to 0 to 1, or convert it to 8 bits"
        )
    if high < 1 / 16:
        raise BadPicture(_too_low("floats, of which 1 is white,"))
    return _scaled(values, span)


def _levels_of_integers(values: np.ndarray, span: ValueRange) -> np.ndarray:
    if span.declared:
        return _scaled(values, span)
    # A value of 12 bits in a file of 12 bits is as bright as it says.
    if span.bits in (16, 32) and values.max() >> (span.bits - 4) == 0:
        raise BadPicture(_too_low(f"{span.bits}-bit values"))
    return (values >> (span.bits - 8)).astype(np.uint8)


def _scaled(values: np.ndarray, span: ValueRange) -> np.ndarray:
    low, high = values.min(), values.max()
    if low < span.low or high > span.high:
        raise BadPicture(
            f"its values are from {low:g} to {high:g}, but it declares that they are from "
            f"{span.low:g} to {span.high:g}; convert it to 8 bits"
        )
    shares = (values.astype(np.float64) - span.low) / (span.high - span.low)
    return np.rint(shares * 255).astype(np.uint8)


def _too_low(values: str) -> str:
    return (
        f"all its {values} are below a sixteenth of the range, so they seem to use fewer bits, and "
        "it would come out nearly black; scale them to 8 bits"
    )
