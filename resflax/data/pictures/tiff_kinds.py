"""Kinds of TIFF (TIFF 6.0): which of them are refused, and what their sample values mean.

Pillow opens some kinds that it decodes wrongly, so these are refused here. All others either come
out right or are refused by Pillow itself.
"""

import io
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from PIL import Image, TiffImagePlugin

from resflax.data.pictures.bad_picture import BadPicture

Tags = Mapping[int, Any]
"""The values of a TIFF's tags by their numbers."""

# Tags.
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _MAX_VALUE = 258, 259, 262, 277, 281
_PLANES, _COLORMAP, _EXTRA, _FORMAT = 284, 320, 338, 339
_S_MIN, _S_MAX, _SUBSAMPLING, _SUBFILE = 340, 341, 530, 254

# Their values.

_MIN_IS_WHITE, _GRAY, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_UNSIGNED, _FLOAT = 1, 3  # SampleFormat
_UNCOMPRESSED, _SEPARATE_PLANES, _ALPHA, _REDUCED = 1, 2, 2, 1
_PHOTOMETRICS = {
    0: "gray with 0 for white",
    1: "gray",
    2: "RGB",
    3: "palette",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_FORMATS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers"}


class ValueRange(NamedTuple):
    """The sample values of a gray picture that are black and white."""

    low: float
    """The value that is black; white if `inverted`."""
    high: float
    """The value that is white; black if `inverted`."""
    bits: int
    """Number of bits of a sample."""
    declared: bool = False
    """Whether the file says that its values have another range than their type has."""
    inverted: bool = False
    """Whether the lowest value is white."""


def check_tiff(image: Image.Image, encoded: bytes) -> None:
    """Raises `BadPicture` for a kind of TIFF that Pillow opens, but decodes wrongly.

    A raw photo (DNG, NEF, ...), whose first page is a small preview, is refused too.
    A palette of 8-bit values, which some programs write instead of 16-bit ones, is repaired, as
    libtiff does it.
    """
    tags = _tags(image)
    bits, samples, photometric = _bits(tags), tags.get(_SAMPLES, 1), tags.get(_PHOTOMETRIC, 0)
    extra = tuple(tags.get(_EXTRA, ()))
    if tags.get(_SUBFILE, 0) & _REDUCED:
        raise BadPicture("a raw photo, or a TIFF that begins with a preview; convert it to JPEG")
    if tags.get(_PLANES) == _SEPARATE_PLANES:
        kinds = (
            (_GRAY, 1, ()),
            (_PALETTE, 1, ()),
            (_RGB, 3, ()),
            (_RGB, 4, (_ALPHA,)),
            (_CMYK, 4, ()),
        )
        if bits != 8 or (photometric, samples, extra) not in kinds:
            raise BadPicture(_refusal(tags))
    unsigned, compressed = (
        _kind(tags) == _UNSIGNED,
        tags.get(_COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED,
    )
    # Pillow changes the order of the bytes after libtiff has done so.
    if not unsigned and (bits == 8 or (compressed and encoded.startswith(b"MM"))):
        raise BadPicture(_refusal(tags))
    if photometric == _YCBCR and not compressed:  # otherwise libtiff converts to RGB
        subsampled = tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1)
        if subsampled or image.mode != "YCbCr":
            raise BadPicture(_refusal(tags))
    if bits > 8 and samples > 1 and _declared(tags, bits) is not None:
        raise BadPicture(_refusal(tags))  # because Pillow keeps only the upper 8 bits of colours
    if image.mode in ("P", "PA") and max(tags[_COLORMAP]) < 256 and image.palette is not None:
        image.palette.palette = bytes(tags[_COLORMAP])


def unloaded_tiff(image: Image.Image, error: Exception) -> str | None:
    """Why a TIFF that was opened cannot be decoded; None if it is not its kind, but damage."""
    if image.format != "TIFF" or "raw mode" not in str(error):
        return None
    return _refusal(_tags(image))


def tiff_bits(image: Image.Image) -> int:
    """Number of bits of each sample of a TIFF."""
    return _bits(_tags(image))


def tiff_range(image: Image.Image) -> ValueRange:
    """The range of the values of a gray TIFF of more than 8 bits.

    The tags SMinSampleValue and SMaxSampleValue declare it. A MaxSampleValue that is one less than
    a power of two declares how many bits are used; otherwise that tag is a mere statistic. By
    default unsigned integers have the range of their bits, and floats the range from 0 to 1.

    Raises `BadPicture` for signed integers of which no range is declared.
    """
    tags = _tags(image)
    bits, kind = _bits(tags), _kind(tags)
    inverted = tags.get(_PHOTOMETRIC, _MIN_IS_WHITE) == _MIN_IS_WHITE
    declared = _declared(tags, bits)
    if declared is not None:
        return ValueRange(*declared, bits, declared=True, inverted=inverted)
    if kind == _FLOAT:
        return ValueRange(0, 1, bits, inverted=inverted)
    if kind != _UNSIGNED:
        raise BadPicture(
            f"a TIFF of {_FORMATS.get(kind, 'unknown samples')} which does not say, by "
            "SMinSampleValue and SMaxSampleValue, which values are black and white; "
            "convert it to 8 bits"
        )
    return ValueRange(0, 2**bits - 1, bits, inverted=inverted)


def unopened_tiff(encoded: bytes) -> str | None:
    """Why a TIFF cannot be opened, with its kind in words; None for everything else."""
    if encoded[:4] not in (b"II*\0", b"MM\0*"):
        return None
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(encoded[:8])
        file = io.BytesIO(encoded)
        file.seek(directory.next)
        directory.load(file)
        return f"damaged, or {_refusal(directory)}"
    except Exception:  # of many types, for damaged files
        return None


def _tags(image: Image.Image) -> Tags:
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    tags: Tags = image.tag_v2
    return tags


def _bits(tags: Tags) -> int:
    return int(max(tags.get(_BITS, (1,))))


def _kind(tags: Tags) -> int:
    return int(max(tags.get(_FORMAT, (_UNSIGNED,))))


def _declared(tags: Tags, bits: int) -> tuple[float, float] | None:
    """The declared range of the values; None if it is that of their type or makes no sense."""
    low, high = _first(tags, _S_MIN, 0), _first(tags, _S_MAX, math.nan)
    if not low < high:
        most = _first(tags, _MAX_VALUE, 0)
        low, high = 0, most if most in {2**n - 1 for n in range(1, bits)} else math.nan
    if not (math.isfinite(low) and math.isfinite(high)) or (low, high) == (0, 2**bits - 1):
        return None
    return low, high


def _first(tags: Tags, tag: int, missing: float) -> float:
    """The value of a tag for the first sample."""
    value = tags.get(tag, missing)
    return float(value[0] if isinstance(value, tuple) else value)


def _refusal(tags: Tags) -> str:
    photometric = tags.get(_PHOTOMETRIC, 0)
    kind, samples = _kind(tags), tags.get(_SAMPLES, 1)
    words = [
        _PHOTOMETRICS.get(photometric, f"PhotometricInterpretation {photometric}"),
        f"{samples} sample{'s' * (samples > 1)} of {_bits(tags)} bits",
        _FORMATS.get(kind, f"SampleFormat {kind}"),
        *(["separate planes"] if tags.get(_PLANES) == _SEPARATE_PLANES else []),
        "uncompressed" if tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED else "compressed",
    ]
    return f"a kind of TIFF that is not supported ({', '.join(words)}); convert it to 8-bit RGB"
