"""Decoding against Pillow, resizing against means and lines, EXIF, limits and damaged pictures."""

import io
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encode, photo
from PIL import Image, ImageOps, PngImagePlugin

from resflax import UsageError
from resflax.data.pictures.bad_picture import BadPicture
from resflax.data.pictures.decoding import decode, picture_size
from resflax.data.pictures.orientation import turn
from resflax.data.pictures.resizing import center_crop, resize, resize_shorter

ORIENTATION = 274  # the EXIF tag


def decode_with_pillow(encoded: bytes, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))


def test_importing_changes_no_other_library():
    code = """
import cv2, warnings
from PIL import Image

def settings():
    return Image.MAX_IMAGE_PIXELS, cv2.getNumThreads(), list(warnings.filters)

before = settings()
import resflax.data.pictures
assert settings() == before, (before, settings())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# --- Decoding


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("shape", [(60, 80), (61, 37), (1, 1), (8, 200)])
def test_jpegs_are_those_of_pillow(shape: tuple[int, int], sampling: str):
    encoded = encode(photo(*shape), quality=90, subsampling=sampling)
    pixels = decode(encoded)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (*shape, 3))
    assert np.array_equal(pixels, decode_with_pillow(encoded))
    assert picture_size(encoded) == shape


def odd_pictures() -> dict[str, bytes]:
    image = Image.fromarray(photo())
    return {
        "gray jpeg": encode(image.convert("L")),
        "CMYK jpeg": encode(image.convert("CMYK")),
        "progressive jpeg": encode(image, progressive=True),
        "jpeg with a tail": encode(image) + b"tail",
        "png": encode(image, "png"),
        "gray png": encode(image.convert("L"), "png"),
        "transparent png": encode(image.convert("RGBA"), "png"),
        "1-bit png": encode(image.convert("1"), "png"),
        "bmp": encode(image, "bmp"),
        "webp": encode(image, "webp", lossless=True),
        "gif": encode(image, "gif"),
        "tiff": encode(image, "tiff"),
    }


@pytest.mark.parametrize("name", odd_pictures())
def test_all_formats_become_rgb(name: str):
    encoded = odd_pictures()[name]
    assert np.array_equal(decode(encoded), decode_with_pillow(encoded))
    assert decode(encoded, shorter_side=10).shape[-1] == 3
    assert picture_size(encoded) == (60, 80)


def test_transparent_palettes_become_rgb():
    palette = Image.fromarray(photo()).convert("P")
    encoded = encode(palette, "png", transparency=bytes(range(256)))
    assert np.array_equal(decode(encoded), decode_with_pillow(encoded, "RGBA")[..., :3])


def test_16_bits_are_scaled_and_not_cut_off():
    values = (np.arange(512, dtype=np.uint16) * 128).reshape(16, 32)
    assert np.array_equal(decode(encode(values, "png"), 1)[..., 0], values // 256)


@pytest.mark.parametrize("file_format", ["jpeg", "png"])
def test_pictures_have_the_channels_that_are_asked_for(file_format: str):
    gray, color = encode(photo(channels=1)[..., 0], file_format), encode(photo(), file_format)
    for encoded in (gray, color):
        assert [decode(encoded, n).shape for n in (1, 3, 4)] == [(60, 80, n) for n in (1, 3, 4)]
        assert (decode(encoded, 4)[..., 3] == 255).all()
        assert np.array_equal(decode(encoded, 4)[..., :3], decode(encoded))
    assert np.array_equal(decode(gray)[..., 0], decode(gray, 1)[..., 0])


@settings(deadline=None, max_examples=50)
@given(height=st.integers(1, 300), width=st.integers(1, 300), shorter_side=st.integers(1, 400))
def test_scaled_jpegs_are_no_smaller_than_asked(height: int, width: int, shorter_side: int):
    pixels = decode(encode(photo(height, width)), shorter_side=shorter_side)
    assert min(pixels.shape[:2]) >= min(shorter_side, height, width)
    # The sides are multiplied by n/8 and rounded up, with the least n that suffices. This is done
    # only if a half suffices.
    factors = [Fraction(n, 8) for n in range(1, 9)]
    sizes = [(-int(-height * f // 1), -int(-width * f // 1)) for f in factors]
    half_suffices = 2 * shorter_side <= min(height, width)
    sufficient = (size for size in sizes if min(size) >= shorter_side)
    expected = next(sufficient) if half_suffices else (height, width)
    assert pixels.shape[:2] == expected


def test_a_scaled_jpeg_is_the_picture():
    encoded = encode(photo(160, 240), quality=95)
    small = decode(encoded, shorter_side=40)
    assert small.shape == (40, 60, 3)
    assert np.abs(small.astype(int) - resize(decode(encoded), 40, 60)).mean() < 2


def test_pixels_in_reused_memory_are_the_same():
    pictures = [encode(photo(60 - 7 * seed, 80, seed=seed)) for seed in range(4)]
    there_and_back = [*pictures, *pictures[::-1]]
    results = [decode(encoded, reuse_memory=True).copy() for encoded in there_and_back]
    expected = [decode(encoded) for encoded in there_and_back]
    assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))
    first, second = (decode(encoded, reuse_memory=True) for encoded in pictures[:2])
    assert np.shares_memory(first, second)
    assert not np.shares_memory(decode(pictures[0]), decode(pictures[1]))


# --- EXIF orientation


def with_exif(image: Image.Image, exif: Image.Exif | bytes, file_format: str) -> bytes:
    lossless = {"lossless": True} if file_format == "webp" else {}
    return encode(image, file_format, exif=exif, **lossless)


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("orientation", range(10))
def test_pictures_are_turned_as_their_exif_says(orientation: int, mode: str, file_format: str):
    if (mode, file_format) == ("RGBA", "jpeg"):
        mode = "RGB"  # a JPEG has no transparency, but may be decoded to four channels
        channels = 4
    else:
        channels = len(mode) if mode != "L" else 1
    random = np.random.default_rng(0).integers(0, 256, (6, 4, 4), np.uint8)
    image = Image.fromarray(random).convert(mode)
    encoded = with_exif(image, oriented(orientation), file_format)
    result = decode(encoded, channels)
    transposed = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    expected = np.asarray(transposed.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    assert (result.dtype, result.ndim, result.shape[-1]) == (np.uint8, 3, channels)
    assert np.array_equal(result, expected.reshape(result.shape))
    assert picture_size(encoded) == result.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_of_a_reduced_scale_are_turned(orientation: int):
    image = Image.fromarray(photo(90, 61))
    encoded = with_exif(image, oriented(orientation), "jpeg")
    upright = turn(decode(encode(image), shorter_side=20, reuse_memory=True), orientation)
    assert sorted(upright.shape[:2]) == [23, 34]  # three eighths
    for reuse_memory in (False, True):
        turned = decode(encoded, shorter_side=20, reuse_memory=reuse_memory)
        assert np.array_equal(turned, upright)


def test_an_orientation_in_xmp_counts_if_exif_has_none():
    image = Image.fromarray(photo(6, 4))
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    plain, text = decode(encode(image, "png")), "XML:com.adobe.xmp"
    info = PngImagePlugin.PngInfo()
    info.add_itxt(text, xmp.decode())
    options_of: dict[str, dict[str, Any]] = {
        "jpeg": {"xmp": xmp},
        "webp": {"xmp": xmp},
        "png": {"pnginfo": info},
    }
    for file_format, options in options_of.items():
        assert decode(encode(image, file_format, **options)).shape == (4, 6, 3)
        exif = oriented(1)
        exif[271] = "maker"
        both = encode(image, file_format, exif=exif, **options)
        assert decode(both).shape == plain.shape


def test_the_place_of_exif_in_a_jpeg_does_not_matter():
    image = Image.fromarray(photo(6, 4))
    encoded = encode(image, exif=oriented(6))
    start = encoded.index(b"\xff\xe1")
    end = start + 2 + int.from_bytes(encoded[start + 2 : start + 4])
    exif, rest = encoded[start:end], encoded[:start] + encoded[end:]
    frame = rest.index(b"\xff\xc0")
    for moved in (
        rest[:frame] + exif + rest[frame:],
        rest[:2] + exif + rest[2:],
        rest[:2] + b"\xff\xff" + exif + rest[2:],  # bytes that fill up
        rest[:2] + b"\xff\xe1\0\7other" + exif + rest[2:],
    ):
        assert np.array_equal(decode(moved), decode(encoded))
        assert picture_size(moved) == (4, 6)
    after_the_end = rest + exif
    assert picture_size(after_the_end) == (6, 4)


def test_exif_that_cannot_be_used_changes_nothing():
    image = Image.fromarray(photo(6, 4))
    good = oriented(6).tobytes()
    entry = struct.pack("<HHHI4s", 1, ORIENTATION, 2, 2, b"6")  # a text instead of a number
    text = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entry + bytes(4)
    far = b"Exif\0\0II*\0" + struct.pack("<I", 2**32 - 1)
    damaged = [b"Exif\0\0no data", b"Exif\0\0", good[:12], good[:24], text, far]
    assert Image.open(io.BytesIO(with_exif(image, text, "png"))).getexif()[ORIENTATION] == "6"
    for file_format in ("png", "jpeg", "webp"):
        plain = decode(with_exif(image, b"", file_format))
        for exif in damaged:
            encoded = with_exif(image, exif, file_format)
            assert np.array_equal(decode(encoded), plain)
            assert picture_size(encoded) == (6, 4)


@settings(deadline=None, max_examples=200)
@given(data=st.data(), file_format=st.sampled_from(["jpeg", "png", "webp", "tiff"]))
def test_random_damage_to_the_orientation_never_fails(data: st.DataObject, file_format: str):
    encoded = bytearray(with_exif(Image.fromarray(photo(6, 4)), oriented(6), file_format))
    start = encoded.find({"webp": b"EXIF", "png": b"eXIf"}.get(file_format, b"")) % len(encoded)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(start, min(start + 60, len(encoded) - 1)))
        encoded[place] = data.draw(st.integers(0, 255))
    try:
        size = picture_size(bytes(encoded))
        pixels = decode(bytes(encoded))
    except BadPicture:
        return
    assert pixels.shape == (*size, 3)


# --- Limits and damage


@pytest.mark.parametrize("limit", [3000, 1000])  # Pillow warns of 4,800 pixels, or refuses them
@pytest.mark.parametrize("name", odd_pictures())
def test_pictures_above_pillows_limit_are_read_where_warnings_are_errors(
    name: str, limit: int, monkeypatch
):
    encoded = odd_pictures()[name]
    expected = decode(encoded)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises((Image.DecompressionBombWarning, Image.DecompressionBombError)):
        Image.open(io.BytesIO(encoded))
    assert np.array_equal(decode(encoded), expected)
    assert picture_size(encoded) == (60, 80)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_threads_may_read_pictures_above_pillows_limit(monkeypatch):
    encoded = encode(photo(), "png")
    expected = decode(encoded)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with ThreadPoolExecutor(8) as threads:
        for pixels in threads.map(decode, [encoded] * 100):
            assert np.array_equal(pixels, expected)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_pillows_limit_is_restored_after_a_damaged_picture(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    encoded = encode(photo(), "png")
    with pytest.raises(BadPicture, match="damaged"):
        decode(encoded[: len(encoded) // 2])
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_huge_pictures_are_refused_before_they_take_memory():
    encoded = encode(np.zeros((8, 8, 3), np.uint8))
    height_and_width = encoded.index(b"\xff\xc0") + 5  # in the frame's header
    huge_jpeg = encoded[:height_and_width] + b"\xff\xf0\xff\xf0" + encoded[height_and_width + 4 :]
    with pytest.raises(BadPicture, match=r"65520x65520 pixels; there must be .* at most 134217728"):
        decode(huge_jpeg)
    huge_bitmap = bytearray(encode(np.zeros((8, 8, 3), np.uint8), "bmp"))
    huge_bitmap[18:26] = (20_000).to_bytes(4, "little") * 2
    for read in (decode, picture_size):
        with pytest.raises(BadPicture, match="20000x20000 pixels; there must be"):
            read(bytes(huge_bitmap))


@pytest.mark.parametrize("file_format", ["jpeg", "png"])
def test_damaged_pictures_are_refused_in_one_line(file_format: str):
    undamaged = encode(photo(), file_format)
    cut_off, half = undamaged[:10], undamaged[: len(undamaged) // 2]
    damaged = [b"", b"no picture", cut_off, half, b"\0" * 100 + undamaged[100:]]
    for encoded in damaged:
        with pytest.raises(BadPicture) as error:
            decode(encoded)
        assert "\n" not in str(error.value)
    for encoded in damaged[:3]:
        with pytest.raises(BadPicture):
            picture_size(encoded)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), file_format=st.sampled_from(["jpeg", "png", "gif", "bmp", "webp", "tiff"]))
def test_random_damage_gives_pixels_or_a_bad_picture(data: st.DataObject, file_format: str):
    encoded = bytearray(encode(photo(20, 30), file_format))
    for _ in range(data.draw(st.integers(1, 6))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode(bytes(encoded))
    except BadPicture:
        return
    assert (pixels.dtype, pixels.ndim, pixels.shape[-1]) == (np.uint8, 3, 3)


@pytest.mark.parametrize("file_format", ["png", "jpeg", "gif", "bmp"])
@pytest.mark.filterwarnings("ignore")  # Pillow warns of some damage that it can read nevertheless
def test_many_damaged_pictures_are_decoded_or_refused(file_format: str):
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (6, 5, 3), dtype=np.uint8)
    encoded = encode(noise, file_format)
    channels: set[int | None] = set()
    for _ in range(1500):
        damaged = np.frombuffer(encoded, np.uint8).copy()
        end = generator.choice([20, 60, len(damaged)])
        places = generator.integers(0, end, generator.integers(1, 7))
        damaged[places] = generator.integers(0, 256, len(places))
        length = generator.choice([len(damaged), int(generator.integers(len(damaged)))])
        try:
            channels.add(decode(damaged[:length].tobytes()).shape[2])
        except BadPicture:
            channels.add(None)
    assert None in channels
    assert channels <= {None, 3}


# --- Resizing


@settings(deadline=None, max_examples=50)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    by=st.integers(1, 5),
    channels=st.integers(1, 4),
)
def test_smaller_pictures_are_means_of_areas(rows: int, columns: int, by: int, channels: int):
    image = photo(rows * by, columns * by, channels)
    means = image.reshape(rows, by, columns, by, channels).mean((1, 3))
    resized = resize(image, rows, columns)
    assert (resized.dtype, resized.shape) == (np.uint8, (rows, columns, channels))
    assert np.abs(resized - means).max() <= 0.5 + 1e-6


def test_larger_pictures_are_interpolated():
    ramp = np.tile(np.arange(0, 200, 20, dtype=np.uint8)[None, :, None], (4, 1, 3))
    resized = resize(ramp, 8, 20)[2:-2, 1:-1, 0].astype(int)
    assert (np.diff(resized, axis=1) == 10).all()
    assert (resized == resized[0]).all()


@settings(deadline=None, max_examples=100)
@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(1, 60))
def test_the_shorter_side_has_the_size_and_the_shape_stays(height: int, width: int, size: int):
    resized = resize_shorter(np.zeros((height, width, 3), np.uint8), size).shape[:2]
    assert min(resized) == size
    assert abs(max(resized) - size * max(height, width) / min(height, width)) < 1
    assert (resized[0] < resized[1]) <= (height < width)


def test_center_crops():
    image = photo(7, 10)
    assert np.array_equal(center_crop(image, 3, 3), image[2:5, 3:6])
    assert np.array_equal(center_crop(image, 7, 7), image[:, 1:8])
    assert np.array_equal(center_crop(image, 5, 10), image[1:6])
    with pytest.raises(UsageError, match="8x8 does not fit into a picture of 7x10"):
        center_crop(image, 8, 8)
