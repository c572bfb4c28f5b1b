"""Unusual kinds of pictures come out right, compared with NumPy, or are refused by name."""

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tiffs
from photos import encode, photo
from PIL import Image
from tiffs import tiff

from resflax.data.pictures.bad_picture import BadPicture
from resflax.data.pictures.decoding import decode, picture_size
from resflax.data.pictures.orientation import turn

HEIGHT, WIDTH = 6, 8


def decoded_or_refusal(encoded: bytes, channels: int = 3) -> np.ndarray | str:
    try:
        return decode(encoded, channels)
    except BadPicture as error:
        return str(error)


def random_samples(count: int, bits: int, sample_format: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    shape = HEIGHT, WIDTH, count
    if sample_format == tiffs.FLOAT:
        return generator.random(shape)
    if sample_format == tiffs.SIGNED:
        return generator.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape)
    return generator.integers(0, 2**bits, shape, dtype=np.uint64)


def rgb_levels(shares: np.ndarray, photometric: int) -> np.ndarray:
    """The levels (H, W, 3) of samples that were divided by the largest possible one (TIFF 6.0)."""
    if photometric in (tiffs.MIN_IS_WHITE, tiffs.MIN_IS_BLACK):
        gray = shares[..., :1] if photometric == tiffs.MIN_IS_BLACK else 1 - shares[..., :1]
        return np.repeat(255 * gray, 3, -1)
    if photometric == tiffs.CMYK:
        return 255 * (1 - shares[..., :3]) * (1 - shares[..., 3:4])
    if photometric == tiffs.YCBCR:
        y, cb, cr = np.moveaxis(255 * shares[..., :3], -1, 0)
        cb, cr = cb - 128, cr - 128
        rgb = [y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb]
        return np.stack(rgb, -1).clip(0, 255)
    if photometric == tiffs.CIELAB:
        return rgb_of_lab(shares)
    assert photometric == tiffs.RGB
    return 255 * shares[..., :3]


def rgb_of_lab(shares: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of white point D50 as sRGB, by the matrix of its ICC profile."""
    lightness = 100 * shares[..., 0]
    a, b = (np.rint(255 * shares[..., i]).astype(np.uint8).view(np.int8) for i in (1, 2))
    y = (lightness + 16) / 116
    root = np.stack([y + a / 500, y, y - b / 200], -1)
    xyz = np.where(root > 6 / 29, root**3, 3 * (6 / 29) ** 2 * (root - 4 / 29))
    xyz = xyz * (0.9642, 1, 0.8249)
    to_xyz = [(0.4361, 0.3851, 0.1431), (0.2225, 0.7169, 0.0606), (0.0139, 0.0971, 0.7141)]
    linear = (xyz @ np.linalg.inv(np.array(to_xyz)).T).clip(0, 1)
    return 255 * np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


COLOURS = [
    (tiffs.MIN_IS_WHITE, 1, ()),
    (tiffs.MIN_IS_BLACK, 1, ()),
    (tiffs.MIN_IS_WHITE, 2, (0,)),
    (tiffs.MIN_IS_BLACK, 2, (0,)),
    (tiffs.MIN_IS_BLACK, 2, (2,)),
    (tiffs.RGB, 3, ()),
    (tiffs.RGB, 4, ()),
    (tiffs.RGB, 4, (0,)),
    (tiffs.RGB, 4, (2,)),
    (tiffs.CMYK, 4, ()),
    (tiffs.CMYK, 5, (0,)),
    (tiffs.YCBCR, 3, ()),
    (tiffs.CIELAB, 3, ()),
    (9, 3, ()),
]
"""PhotometricInterpretation, number of samples and ExtraSamples."""

KINDS = [
    (sample_format, bits)
    for sample_format, sizes in {
        tiffs.UNSIGNED: (1, 2, 4, 6, 8, 12, 16, 32),
        tiffs.SIGNED: (8, 16, 32),
        tiffs.FLOAT: (16, 32, 64),
    }.items()
    for bits in sizes
]
"""SampleFormat and BitsPerSample."""

DECODED = {
    (tiffs.MIN_IS_WHITE, ()): {(1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 32)},
    (tiffs.MIN_IS_BLACK, ()): {(1, 1), (1, 2), (1, 4), (1, 8), (1, 12), (1, 16), (1, 32), (3, 32)},
    (tiffs.MIN_IS_BLACK, (2,)): {(1, 8)},
    (tiffs.RGB, ()): {(1, 8), (1, 16)},
    (tiffs.RGB, (0,)): {(1, 8), (1, 16)},
    (tiffs.RGB, (2,)): {(1, 8), (1, 16)},
    (tiffs.CMYK, ()): {(1, 8), (1, 16)},
    (tiffs.CMYK, (0,)): {(1, 8)},
    (tiffs.CIELAB, ()): {(1, 8)},
}
"""The kinds that every supported Pillow decodes if they are little-endian, not planar and not
compressed."""


@pytest.mark.parametrize(("photometric", "count", "extra"), COLOURS)
def test_tiffs_come_out_right_or_are_refused_by_name(
    photometric: int, count: int, extra: tuple[int, ...]
):
    decoded = set()
    for kind, order, planar, compressed in itertools.product(
        KINDS, "<>", (False, True), (False, True)
    ):
        sample_format, bits = kind
        samples = random_samples(count, bits, sample_format)
        if photometric == tiffs.CIELAB and bits == 8:  # colours that sRGB can show
            samples = samples % [[[100, 20, 20]]] + [[[60, 0, 0]]]
        tags: tiffs.Tags = {530: ("H", (1, 1))} if photometric == tiffs.YCBCR else {}
        encoded = tiff(
            samples,
            photometric,
            bits,
            sample_format,
            order=order,
            planar=planar,
            compressed=compressed,
            extra=extra,
            tags=tags,
        )
        pixels = decoded_or_refusal(encoded)
        if isinstance(pixels, str):
            assert "TIFF" in pixels, pixels
            assert "; convert it to 8" in pixels, pixels
            continue
        shares = samples if sample_format == tiffs.FLOAT else samples / (2**bits - 1)
        error = np.abs(pixels - rgb_levels(shares, photometric)).max()
        assert error < 2, (kind, order, planar, compressed)
        assert picture_size(encoded) == (HEIGHT, WIDTH)
        if (order, planar, compressed) == ("<", False, False):
            decoded.add(kind)
    assert decoded >= DECODED.get((photometric, extra), set())


@pytest.mark.parametrize(
    ("photometric", "bits"), [(tiffs.MIN_IS_BLACK, 8), (tiffs.RGB, 8), (tiffs.RGB, 16)]
)
def test_premultiplied_colours_are_divided_by_alpha(photometric: int, bits: int):
    count = 4 if photometric == tiffs.RGB else 2
    samples = random_samples(count, bits, tiffs.UNSIGNED).astype(float)
    alpha = samples[..., -1:] = 2 ** (bits - 1) + samples[..., -1:] // 2
    samples[..., :-1] = samples[..., :-1] * alpha / (2**bits - 1)
    encoded = tiff(np.rint(samples), photometric, bits, extra=(1,))
    pixels = decoded_or_refusal(encoded)
    if isinstance(pixels, str):  # Pillow 11 does not read these
        assert "gray, 2 samples of 8 bits" in pixels
    else:
        expected = rgb_levels(samples[..., :-1] / alpha, photometric)
        assert np.abs(pixels - expected).max() < 4  # division magnifies the rounding


GRAY_RAMP = np.linspace(0, 1, 48).reshape(6, 8, 1)
LEVELS = 255 * GRAY_RAMP


@pytest.mark.parametrize(
    ("samples", "bits", "sample_format", "tags"),
    [
        (4095 * GRAY_RAMP, 16, tiffs.UNSIGNED, {341: ("H", [4095])}),
        (4095 * GRAY_RAMP, 16, tiffs.UNSIGNED, {281: ("H", [4095])}),
        (100 + 900 * GRAY_RAMP, 16, tiffs.UNSIGNED, {340: ("H", [100]), 341: ("H", [1000])}),
        (65535 * GRAY_RAMP, 16, tiffs.UNSIGNED, {281: ("H", [50000])}),  # a mere statistic
        (1e6 * GRAY_RAMP, 32, tiffs.UNSIGNED, {341: ("I", [1_000_000])}),
        (2000 * GRAY_RAMP - 1000, 16, tiffs.SIGNED, {340: ("h", [-1000]), 341: ("h", [1000])}),
        (2e9 * GRAY_RAMP - 1e9, 32, tiffs.SIGNED, {340: ("i", [-(10**9)]), 341: ("i", [10**9])}),
        (500 * GRAY_RAMP - 100, 32, tiffs.FLOAT, {340: ("f", [-100]), 341: ("f", [400])}),
    ],
)
def test_declared_ranges_say_what_is_black_and_white(
    samples: np.ndarray, bits: int, sample_format: int, tags: tiffs.Tags
):
    rounded = samples if sample_format == tiffs.FLOAT else np.rint(samples).astype(np.int64)
    for photometric, levels in ((tiffs.MIN_IS_BLACK, LEVELS), (tiffs.MIN_IS_WHITE, 255 - LEVELS)):
        encoded = tiff(rounded, photometric, bits, sample_format, tags=tags)
        pixels = decoded_or_refusal(encoded, 1)
        if isinstance(pixels, str):  # Pillow does not read all of these
            assert photometric == tiffs.MIN_IS_WHITE
            assert "gray with 0 for white" in pixels
        else:
            assert np.abs(pixels - levels).max() < 1


@pytest.mark.parametrize(
    ("samples", "bits", "sample_format", "said"),
    [
        (4095 * GRAY_RAMP, 16, tiffs.UNSIGNED, "16-bit values are below a sixteenth"),
        (65535 * GRAY_RAMP, 32, tiffs.UNSIGNED, "32-bit values are below a sixteenth"),
        (255 * GRAY_RAMP, 32, tiffs.FLOAT, "floats from 0 to 255"),
        (2 * GRAY_RAMP - 1, 32, tiffs.FLOAT, "floats from -1 to 1"),
        (GRAY_RAMP / 20, 32, tiffs.FLOAT, "floats, of which 1 is white, are below a sixteenth"),
        (np.where(GRAY_RAMP > 0.5, np.nan, 0.5), 32, tiffs.FLOAT, "not finite"),
        (1000 * GRAY_RAMP, 16, tiffs.SIGNED, "TIFF of signed integers which does not say"),
    ],
)
def test_values_of_an_unknown_range_are_refused(
    samples: np.ndarray, bits: int, sample_format: int, said: str
):
    with pytest.raises(BadPicture, match=f"{said}.* (convert it|scale them) to 8 bits"):
        decode(tiff(samples, tiffs.MIN_IS_BLACK, bits, sample_format))


def test_a_declared_range_that_is_wrong_is_refused():
    samples = np.rint(65535 * GRAY_RAMP)
    said = (
        "values are from 0 to 65535, but it declares that they are from 0 to 255; convert it to 8"
    )
    with pytest.raises(BadPicture, match=said):
        decode(tiff(samples, tiffs.MIN_IS_BLACK, 16, tags={281: ("H", [255])}))


def test_a_declared_range_of_16_bit_colours_is_refused():
    samples = np.repeat(np.rint(16383 * GRAY_RAMP), 3, -1)
    assert np.abs(decode(tiff(samples, tiffs.RGB, 16)) - LEVELS / 4).max() < 1
    with pytest.raises(BadPicture, match=r"RGB, 3 samples of 16 bits.*convert it to 8-bit RGB"):
        decode(tiff(samples, tiffs.RGB, 16, tags={341: ("H", [16383] * 3)}))


@pytest.mark.parametrize("divisor", [256, 257])
def test_palettes_have_16_bits_or_8(divisor: int):
    colors = np.random.default_rng(1).integers(0, 256, (3, 256))
    stored = colors if divisor == 256 else colors * 257  # the first is against the standard
    indices = random_samples(1, 8, tiffs.UNSIGNED)
    encoded = tiff(indices, tiffs.PALETTE, 8, tags={320: ("H", stored.ravel().tolist())})
    assert np.array_equal(decode(encoded), colors.T[indices[..., 0]])


def test_palettes_with_alpha():
    colors = np.random.default_rng(1).integers(0, 256, (3, 256))
    tags: tiffs.Tags = {320: ("H", (colors * 257).ravel().tolist())}
    samples = random_samples(2, 8, tiffs.UNSIGNED)
    encoded = tiff(samples, tiffs.PALETTE, 8, extra=(2,), tags=tags)
    pixels = decode(encoded, 4)
    assert np.array_equal(pixels[..., :3], colors.T[samples[..., 0]])
    assert np.array_equal(pixels[..., 3], samples[..., 1])
    assert np.array_equal(decode(encoded), pixels[..., :3])


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC cannot be decoded; convert it to JPEG"),
        (b"\xff\x0a" + bytes(20), "JPEG XL cannot be decoded; convert it to JPEG"),
        (
            encode(photo()).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"),
            "a JPEG that is damaged, or not of 8 bits",
        ),
        (
            tiff(random_samples(3, 8, 1), tiffs.RGB, 8, tags={254: ("I", [1])}),
            "a raw photo, or a TIFF that begins with a preview; convert it to JPEG",
        ),
    ],
)
def test_formats_that_are_not_decoded_are_named(encoded: bytes, said: str):
    with pytest.raises(BadPicture, match=said):
        decode(encoded)


def png(samples: np.ndarray, color_type: int, significant: int | None = None) -> bytes:
    """A PNG of 16-bit samples (H, W, S)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    height, width, count = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    filtered = np.pad(rows, ((0, 0), (1, 0)))  # each row begins with its filter, none
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
        + (b"" if significant is None else chunk(b"sBIT", bytes([significant] * count)))
        + chunk(b"IDAT", zlib.compress(filtered.tobytes()))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("color_type", "count"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_pngs_of_16_bits(color_type: int, count: int):
    samples = random_samples(count, 16, tiffs.UNSIGNED)
    # sBIT changes nothing: the standard wants values of fewer bits to be scaled up to 16.
    for significant in (None, 12):
        pixels = decode(png(samples, color_type, significant))
        colours = samples[..., :1] if count < 3 else samples[..., :3]
        assert np.array_equal(pixels, np.broadcast_to(colours >> 8, pixels.shape))
    with pytest.raises(BadPicture, match="16-bit values are below a sixteenth of the range"):
        decode(png(samples % 4096, color_type))


@pytest.mark.parametrize("magic", ["P5", "P6"])
def test_portable_maps_declare_their_white(magic: str):
    count = 3 if magic == "P6" else 1
    samples = random_samples(count, 12, tiffs.UNSIGNED)
    for greatest in (4095, 65535):
        scale = 1 if greatest == 4095 else 16
        header = f"{magic} {WIDTH} {HEIGHT} {greatest}\n".encode()
        encoded = header + (samples * scale).astype(">u2").tobytes()
        assert np.abs(decode(encoded) - samples / 4095 * 255).max() < 1.1
    with pytest.raises(BadPicture, match="below a sixteenth"):
        decode(header + samples.astype(">u2").tobytes())


def test_formats_of_unknown_ranges_are_refused():
    header = b"".join(
        f"{card:<80}".encode()
        for card in (
            "SIMPLE  = T",
            "BITPIX  = 16",
            "NAXIS   = 2",
            "NAXIS1  = 8",
            "NAXIS2  = 6",
            "END",
        )
    )
    encoded = header.ljust(2880) + random_samples(1, 16, tiffs.UNSIGNED).astype(">u2").tobytes()
    assert Image.open(io.BytesIO(encoded)).mode == "I;16"
    with pytest.raises(
        BadPicture, match=r"FITS pictures of more than 8 bits.*convert it to 8 bits"
    ):
        decode(encoded)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("gif", {}),
        ("webp", {"lossless": True}),
        ("png", {}),
        ("tiff", {}),
    ],
)
def test_the_first_of_several_pictures_is_decoded(file_format: str, options: dict[str, Any]):
    first, second = (
        Image.fromarray(photo(seed=seed)).quantize(64).convert("RGB") for seed in (0, 1)
    )
    encoded = encode(first, file_format, save_all=True, append_images=[second], **options)
    opened = Image.open(io.BytesIO(encoded))
    opened.seek(1)  # there is a second one
    assert np.array_equal(decode(encoded), np.asarray(first))


def test_icc_profiles_change_nothing():
    image = Image.fromarray(photo())
    for file_format in ("png", "jpeg"):
        plain = decode(encode(image, file_format))
        assert np.array_equal(decode(encode(image, file_format, icc_profile=b"any")), plain)


@pytest.mark.parametrize(
    ("photometric", "count", "bits", "sample_format"),
    [
        (tiffs.MIN_IS_WHITE, 1, 1, tiffs.UNSIGNED),
        (tiffs.MIN_IS_BLACK, 1, 12, tiffs.UNSIGNED),
        (tiffs.MIN_IS_BLACK, 1, 16, tiffs.UNSIGNED),
        (tiffs.MIN_IS_BLACK, 1, 32, tiffs.FLOAT),
        (tiffs.MIN_IS_BLACK, 1, 32, tiffs.UNSIGNED),
        (tiffs.RGB, 3, 16, tiffs.UNSIGNED),
        (tiffs.CMYK, 4, 8, tiffs.UNSIGNED),
        (tiffs.CIELAB, 3, 8, tiffs.UNSIGNED),
    ],
)
def test_tiffs_of_all_kinds_are_turned(photometric: int, count: int, bits: int, sample_format: int):
    samples = random_samples(count, bits, sample_format)
    upright = decode(tiff(samples, photometric, bits, sample_format))
    for order, orientation in itertools.product("<>", range(1, 9)):
        tags: tiffs.Tags = {274: ("H", [orientation])}
        encoded = tiff(samples, photometric, bits, sample_format, order=order, tags=tags)
        pixels = decoded_or_refusal(encoded)
        if isinstance(pixels, str):
            assert (order, photometric, bits) in [(">", 1, 12), (">", 1, 32)]  # Pillow lacks them
        else:
            assert np.array_equal(pixels, turn(upright, orientation))
            assert picture_size(encoded) == pixels.shape[:2]
