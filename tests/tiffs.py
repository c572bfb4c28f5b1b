"""Writes TIFF files of every kind from arrays of samples, without any library (TIFF 6.0)."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, _, CMYK, YCBCR, _, CIELAB = range(9)
"""Values of the tag PhotometricInterpretation."""

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
"""Values of the tag SampleFormat."""

Tags = Mapping[int, tuple[str, Sequence[float]]]
"""For each tag, the type of its values (B, H, I, h, i, f or d as in `struct`) and the values."""

_TYPES = {"B": 1, "H": 3, "I": 4, "h": 8, "i": 9, "f": 11, "d": 12}


def tiff(
    samples: np.ndarray,
    photometric: int,
    bits: int,
    sample_format: int = UNSIGNED,
    *,
    order: str = "<",
    planar: bool = False,
    compressed: bool = False,
    extra: Sequence[int] = (),
    tags: Tags | None = None,
) -> bytes:
    """A TIFF file of the samples (H, W, S), in one strip for each plane.

    Args:
      samples: integers or floats, which are written with `bits` bits.
      photometric: PhotometricInterpretation.
      bits: BitsPerSample.
      sample_format: SampleFormat.
      order: "<" for little-endian (II), ">" for big-endian (MM).
      planar: whether each sample has a plane of its own.
      compressed: whether the strips are compressed by Deflate.
      extra: ExtraSamples.
      tags: further tags.
    """
    height, width, count = samples.shape
    planes = [samples[..., [i]] for i in range(count)] if planar else [samples]
    strips = [_packed(plane, bits, sample_format, order) for plane in planes]
    if compressed:
        strips = [zlib.compress(strip) for strip in strips]
    offsets = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    all_tags: dict[int, tuple[str, Sequence[float]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * count),
        259: ("H", [8 if compressed else 1]),
        262: ("H", [photometric]),
        273: ("I", offsets),
        277: ("H", [count]),
        278: ("I", [height]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if planar else 1]),
        339: ("H", [sample_format] * count),
    }
    if extra:
        all_tags[338] = ("H", extra)
    all_tags |= tags or {}
    pixels = b"".join(strips)
    pixels += b"\0" * (len(pixels) % 2)
    directory = 8 + len(pixels)
    after = directory + 2 + 12 * len(all_tags) + 4
    entries, long_values = b"", b""
    for tag, (kind, values) in sorted(all_tags.items()):
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(packed) > 4:
            place = struct.pack(order + "I", after + len(long_values))
            long_values += packed + b"\0" * (len(packed) % 2)
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, _TYPES[kind], len(values)) + place
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", directory)
    number = struct.pack(order + "H", len(all_tags))
    return start + pixels + number + entries + bytes(4) + long_values


def _packed(samples: np.ndarray, bits: int, sample_format: int, order: str) -> bytes:
    if bits in (8, 16, 32, 64):
        kind = {UNSIGNED: "u", SIGNED: "i", FLOAT: "f"}[sample_format]
        return samples.astype(f"{order}{kind}{bits // 8}").tobytes()
    rows = samples.reshape(len(samples), -1)[..., None]
    digits = (rows.astype(np.int64) >> np.arange(bits)[::-1]) & 1  # the highest bit first
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
