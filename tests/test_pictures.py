"""Decoding against Pillow, resizing against what an area and a line are, and damaged pictures."""

import io
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resflax import UsageError
from resflax.data import pictures
from resflax.data.pictures import BadPicture, center_crop, decode, resize, resize_shorter


def photo(height: int = 60, width: int = 80, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth, as photographs are, and some noise."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (4, 5, channels), dtype=np.uint8)
    image = np.stack(
        [
            np.asarray(Image.fromarray(coarse[..., c]).resize((width, height), 3))
            for c in range(channels)
        ],
        -1,
    )
    return np.clip(image + draw.integers(-3, 4, image.shape), 0, 255).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str = "jpeg", **options: object) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def by_pillow(encoded: bytes, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("shape", [(60, 80), (61, 37), (1, 1), (8, 200)])
def test_jpegs_are_those_of_pillow(shape: tuple[int, int], sampling: str):
    encoded = encode(photo(*shape), quality=90, subsampling=sampling)
    found = decode(encoded)
    assert (found.dtype, found.shape) == (np.uint8, (*shape, 3))
    assert np.array_equal(found, by_pillow(encoded))
    assert pictures.size(encoded) == shape


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
    }


@pytest.mark.parametrize("kind", odd_pictures())
def test_all_kinds_become_rgb(kind: str):
    encoded = odd_pictures()[kind]
    assert np.array_equal(decode(encoded), by_pillow(encoded))
    assert decode(encoded, shorter=10).shape[-1] == 3
    assert pictures.size(encoded) == (60, 80)


def test_transparent_palettes_become_rgb():
    palette = Image.fromarray(photo()).convert("P")
    encoded = encode(palette, "png", transparency=bytes(range(256)))
    assert np.array_equal(decode(encoded), by_pillow(encoded, "RGBA")[..., :3])


def test_16_bits_are_scaled_and_not_cut_off():
    values = (np.arange(512, dtype=np.uint16) * 128).reshape(16, 32)
    assert np.array_equal(decode(encode(values, "png"), 1)[..., 0], values // 256)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_gives_the_channels_asked_for(kind: str):
    gray, color = encode(photo(channels=1)[..., 0], kind), encode(photo(), kind)
    for encoded in (gray, color):
        assert [decode(encoded, n).shape for n in (1, 3, 4)] == [(60, 80, n) for n in (1, 3, 4)]
        assert (decode(encoded, 4)[..., 3] == 255).all()
        assert np.array_equal(decode(encoded, 4)[..., :3], decode(encoded))
    assert np.array_equal(decode(gray)[..., 0], decode(gray, 1)[..., 0])


@settings(deadline=None, max_examples=50)
@given(height=st.integers(1, 300), width=st.integers(1, 300), shorter=st.integers(1, 400))
def test_scaled_jpegs_are_no_smaller_than_asked(height: int, width: int, shorter: int):
    whole = photo(height, width)
    found = decode(encode(whole), shorter=shorter)
    assert min(found.shape[:2]) >= min(shorter, height, width)
    # One of the factors n/8, rounded up, and the least of them that will do, if that is up to 1/2.
    factors = [Fraction(n, 8) for n in range(1, 9)]
    sizes = [(-int(-height * f // 1), -int(-width * f // 1)) for f in factors]
    halved = 2 * shorter <= min(height, width)
    expected = next(s for s in sizes if min(s) >= shorter) if halved else (height, width)
    assert found.shape[:2] == expected


def test_a_scaled_jpeg_is_the_picture():
    encoded = encode(photo(160, 240), quality=95)
    small = decode(encoded, shorter=40)
    assert small.shape == (40, 60, 3)
    assert np.abs(small.astype(int) - resize(decode(encoded), 40, 60)).mean() < 2


def test_brief_pixels_are_the_same_and_their_memory_is_used_again():
    encoded = [encode(photo(60 - 7 * seed, 80, seed=seed)) for seed in range(4)]
    found = [decode(one, briefly=True).copy() for one in [*encoded, *encoded[::-1]]]
    expected = [decode(one) for one in [*encoded, *encoded[::-1]]]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    first, second = (decode(encoded[i], briefly=True) for i in (0, 1))
    assert np.shares_memory(first, second)
    assert not np.shares_memory(decode(encoded[0]), decode(encoded[1]))


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_damaged_pictures_are_refused_in_one_line(kind: str):
    whole = encode(photo(), kind)
    damaged = [b"", b"no picture", whole[:10], whole[: len(whole) // 2], b"\0" * 100 + whole[100:]]
    for encoded in damaged:
        with pytest.raises(BadPicture) as error:
            decode(encoded)
        assert "\n" not in str(error.value)
    for encoded in damaged[:3]:
        with pytest.raises(BadPicture):
            pictures.size(encoded)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), kind=st.sampled_from(["jpeg", "png", "gif", "bmp", "webp"]))
def test_random_damage_gives_pixels_or_an_error_of_ours(data: st.DataObject, kind: str):
    encoded = bytearray(encode(photo(20, 30), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(encoded))
    except BadPicture:
        return
    assert (found.dtype, found.ndim, found.shape[-1]) == (np.uint8, 3, 3)


def test_huge_pictures_are_refused_before_they_take_memory():
    encoded = encode(np.zeros((8, 8, 3), np.uint8))
    place = encoded.index(b"\xff\xc0") + 5  # height and width in the frame's header
    huge = encoded[:place] + b"\xff\xf0\xff\xf0" + encoded[place + 4 :]
    with pytest.raises(BadPicture, match="65520x65520"):
        decode(huge)


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
    found = resize(image, rows, columns)
    assert (found.dtype, found.shape) == (np.uint8, (rows, columns, channels))
    assert np.abs(found - means).max() <= 0.5 + 1e-6


def test_larger_pictures_are_interpolated():
    ramp = np.tile(np.arange(0, 200, 20, dtype=np.uint8)[None, :, None], (4, 1, 3))
    found = resize(ramp, 8, 20)[2:-2, 1:-1, 0].astype(int)
    assert (np.diff(found, axis=1) == 10).all()
    assert (found == found[0]).all()


@settings(deadline=None, max_examples=100)
@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(1, 60))
def test_the_shorter_side_has_the_size_and_the_shape_stays(height: int, width: int, size: int):
    found = resize_shorter(np.zeros((height, width, 3), np.uint8), size).shape[:2]
    assert min(found) == size
    assert abs(max(found) - size * max(height, width) / min(height, width)) < 1
    assert (found[0] < found[1]) <= (height < width)


def test_center_crops():
    image = photo(7, 10)
    assert np.array_equal(center_crop(image, 3), image[2:5, 3:6])
    assert np.array_equal(center_crop(image, 7), image[:, 1:8])
    with pytest.raises(UsageError, match="8 does not fit into a picture of 7x10"):
        center_crop(image, 8)
