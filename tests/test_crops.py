"""Crops lie within the picture, are as large as in the papers, and show the right part."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from photos import encode, photo

from resflax import Streamed
from resflax.data.crops import central_square, random_box, random_square
from resflax.data.draws import Doubles
from resflax.data.pictures import decode, resize


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
