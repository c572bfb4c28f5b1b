"""Crops lie within the picture, are as large as in the papers, and show the right part.

They are the same for a picture that is turned by its EXIF data and for one that is stored upright.
With `resize="pillow_..."` they are those of torchvision, whose rules are written out here.
"""

import dataclasses
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encode, photo
from PIL import Image

from resflax import Streamed
from resflax.benchmark.other_loaders import random_crop_by_pillow
from resflax.data.crops import central_square, random_box, random_square
from resflax.data.draws import Doubles
from resflax.data.pictures.decoding import decode
from resflax.data.pictures.orientation import turn
from resflax.data.pictures.resizing import resize


def drawn_from(seed: int) -> Doubles:
    """Random numbers."""
    return Doubles(np.random.PCG64(seed))


@settings(deadline=None, max_examples=200)
@given(height=st.integers(1, 500), width=st.integers(1, 500), seed=st.integers(0, 2**32))
def test_random_boxes_lie_within_the_picture(height: int, width: int, seed: int):
    top, left, rows, columns = random_box(height, width, drawn_from(seed))
    assert 0 <= top <= top + rows <= height
    assert 0 <= left <= left + columns <= width
    assert rows > 0
    assert columns > 0


def test_random_boxes_have_the_areas_and_ratios_of_the_paper():
    doubles = drawn_from(0)
    boxes = np.array([random_box(500, 500, doubles)[2:] for _ in range(4000)], float)
    area, ratio = boxes.prod(1) / 500**2, boxes[:, 1] / boxes[:, 0]
    assert np.min(area) < 0.1
    assert np.min(area) > 0.079
    assert np.max(area) > 0.95
    assert 0.99 * 3 / 4 <= ratio.min() < 0.8
    assert 1.25 < ratio.max() <= 1.01 * 4 / 3
    assert abs(np.log(ratio).mean()) < 0.01
    # Areas are uniform, but the largest are rarer, because boxes that do not fit are drawn again.
    assert abs(area[area < 0.5].mean() - 0.29) < 0.01


def test_of_very_long_pictures_the_centre_is_taken():
    assert random_box(200, 2, drawn_from(0)) == (98, 0, 3, 2)
    assert random_box(2, 200, drawn_from(0)) == (0, 98, 2, 3)


def test_a_random_crop_is_that_part_of_the_picture():
    ramp = np.stack(np.broadcast_arrays(*np.ogrid[:200, :250], 7), -1).astype(np.uint8)
    encoded, data = encode(ramp, "png"), Streamed("any", image_size=32)
    for seed in range(20):
        top, left, rows, columns = random_box(200, 250, drawn_from(seed))
        crop = random_square(encoded, data, 32, drawn_from(seed)).astype(int)
        source_rows = top + (np.arange(32) + 0.5) * rows / 32 - 0.5
        source_columns = left + (np.arange(32) + 0.5) * columns / 32 - 0.5
        assert np.abs(crop[:, 0, 0] - source_rows).max() <= 1
        assert np.abs(crop[0, :, 1] - source_columns).max() <= 1
        assert (crop[..., 2] == 7).all()


def test_crops_of_scaled_jpegs_are_those_of_whole_ones():
    encoded = encode(photo(400, 600), quality=95, subsampling=0)
    data = Streamed("any", image_size=32)
    for seed in range(10):
        top, left, rows, columns = random_box(400, 600, drawn_from(seed))
        expected = resize(decode(encoded)[top : top + rows, left : left + columns], 32, 32)
        crop = random_square(encoded, data, 32, drawn_from(seed))
        assert np.abs(crop.astype(int) - expected).mean() < 4  # boxes are rounded to scaled pixels


def test_scale_crops_have_the_shorter_sides_that_are_declared():
    ramp = np.stack(np.broadcast_arrays(*np.ogrid[:120, :160], 7), -1).astype(np.uint8)
    encoded = encode(ramp, "png")
    data = Streamed("any", image_size=60, crop="scale", shorter_side=(60, 240))
    steps, corners = [], set()
    for seed in range(60):
        crop = random_square(encoded, data, 60, drawn_from(seed)).astype(float)
        assert crop.shape == (60, 60, 3)
        steps.append((crop[-3, 0, 0] - crop[2, 0, 0]) / 55)  # source pixels per pixel of the crop
        corners.add((crop[0, 0, 0], crop[0, 0, 1]))
    sides = 120 / np.array(steps)
    assert 58 < np.min(sides) < 80
    assert 215 < np.max(sides) < 245
    assert len(corners) > 20


def test_test_squares_are_the_centre_of_the_resized_picture():
    image = photo(60, 90)
    data = Streamed("any", image_size=20, test_shorter_side=30)
    halved = image.reshape(30, 2, 45, 2, 3).mean((1, 3))
    square = central_square(encode(image, "png"), data, 20)
    assert np.abs(square - halved[5:25, 12:32]).max() <= 0.51
    smaller = central_square(encode(image, "png"), data, 10)  # shows the same part
    assert smaller.shape == (10, 10, 3)
    assert abs(smaller.mean() - square.mean()) < 3


@pytest.mark.parametrize(
    ("file_format", "crop", "resize"),
    [
        ("png", "random_resized", "opencv"),
        ("png", "scale", "opencv"),
        ("png", "center", "opencv"),
        ("png", "random_resized", "pillow_bilinear"),
        ("webp", "random_resized", "opencv"),
        ("tiff", "random_resized", "opencv"),
    ],
)
def test_crops_of_turned_pictures_are_those_of_upright_ones(
    file_format: str, crop: Any, resize: Any
):
    stored = photo(40, 51)
    lossless: dict[str, Any] = {"lossless": True} if file_format == "webp" else {}
    data = Streamed("any", image_size=16, crop=crop, shorter_side=(20, 40), test_shorter_side=20)
    data = dataclasses.replace(data, resize=resize)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        encoded = encode(stored, file_format, exif=exif, **lossless)
        upright = encode(turn(stored, orientation), file_format, **lossless)
        crops = [
            random_square(picture, data, 16, drawn_from(orientation))
            for picture in (encoded, upright)
        ]
        assert np.array_equal(crops[0], crops[1])
        squares = [central_square(picture, data, 16) for picture in (encoded, upright)]
        assert np.array_equal(squares[0], squares[1])


def test_crops_of_turned_jpegs_show_the_right_part():
    # Scaled JPEGs and boxes: the left half is dark and the lower half red.
    upright = np.zeros((400, 600, 3), np.uint8)
    upright[:, 300:], upright[200:, :, 0] = 120, 250
    data = Streamed("any", image_size=16)
    for orientation, inverse in {6: 8, 8: 6, 3: 3, 5: 5, 7: 7, 2: 2}.items():
        exif = Image.Exif()
        exif[274] = orientation
        encoded = encode(turn(upright, inverse), exif=exif, quality=95, subsampling=0)
        plain = encode(upright, quality=95, subsampling=0)
        for seed in range(5):
            crops = [
                random_square(picture, data, 16, drawn_from(seed)).astype(int)
                for picture in (encoded, plain)
            ]
            assert np.abs(np.subtract(*crops)).mean() < 1


# --- Resizing as torchvision and timm do it


def torchvision_square(
    encoded: bytes, shorter_side: int, side: int, resample: Image.Resampling
) -> np.ndarray:
    """`CenterCrop(side)(Resize(shorter_side)(image))` of torchvision.transforms, by Pillow."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = shorter_side, int(shorter_side * long / short)
    size = (new_short, new_long) if width <= height else (new_long, new_short)
    image = image.resize(size, resample)
    left, top = int(round((size[0] - side) / 2.0)), int(round((size[1] - side) / 2.0))  # noqa: RUF046
    return np.asarray(image.crop((left, top, left + side, top + side)))


PILLOWS = [
    ("pillow_bilinear", Image.Resampling.BILINEAR),
    ("pillow_bicubic", Image.Resampling.BICUBIC),
]


@pytest.mark.parametrize(("resize", "resample"), PILLOWS)
@pytest.mark.parametrize(
    ("shape", "file_format"),
    [
        ((375, 500), "jpeg"),
        ((500, 333), "jpeg"),
        ((256, 259), "png"),
        ((259, 256), "jpeg"),
        ((90, 100), "png"),
        ((300, 300), "jpeg"),
    ],
)
def test_test_squares_by_pillow_are_those_of_torchvision(
    shape: tuple[int, int], file_format: str, resize: Any, resample: Image.Resampling
):
    encoded = encode(photo(*shape), file_format)
    square = central_square(encoded, Streamed("any", resize=resize), 224)
    assert np.array_equal(square, torchvision_square(encoded, 256, 224, resample))
    # An odd difference is rounded in another way than with OpenCV.
    data = Streamed("any", image_size=25, test_shorter_side=28, resize=resize)
    expected = torchvision_square(encoded, 28, 25, resample)
    assert np.array_equal(central_square(encoded, data, 25), expected)


def test_training_crops_by_pillow_are_those_of_torchvision():
    data = Streamed("any", image_size=32, resize="pillow_bilinear")
    for seed in range(5):
        encoded = encode(photo(300, 420, seed=seed))
        crop = random_square(encoded, data, 32, drawn_from(seed))
        expected = random_crop_by_pillow(encoded, 32, drawn_from(seed))
        assert np.array_equal(crop, expected)


@pytest.mark.parametrize("resize", ["pillow_bilinear", "pillow_bicubic"])
def test_scale_crops_by_pillow_are_parts_of_the_resized_picture(resize: Any):
    encoded = encode(photo(120, 160))
    data = Streamed("any", image_size=40, crop="scale", shorter_side=(50, 50), resize=resize)
    filters = dict(PILLOWS)
    image = Image.open(io.BytesIO(encoded)).resize((66, 50), filters[resize])
    resized = np.asarray(image)
    for seed in range(5):
        into = np.empty((40, 40, 3), np.uint8)
        crop = random_square(encoded, data, 40, drawn_from(seed), into)
        assert crop is into
        windows = np.lib.stride_tricks.sliding_window_view(resized, (40, 40), (0, 1))
        assert (windows == np.moveaxis(crop, -1, 0)).all((2, 3, 4)).any()
