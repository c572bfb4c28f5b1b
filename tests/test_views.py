"""Views of pictures against slow and plain computations of the same."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scoring import (
    MEAN,
    SCALE,
    averaged,
    corners_and_centre,
    drawn_variables,
    normalized,
    one_by_one,
    scoring_network,
    smooth_pictures,
)

from resflax import UsageError
from resflax.evaluation.scores import batches_of_one_shape, log_probabilities
from resflax.evaluation.views import (
    PictureFormat,
    Views,
    resize_to_cover,
    resize_whole,
    view_maker,
)

RESIZED = PictureFormat((8, 8, 3), 10, 0)
MANY_SIZES = [(20, 31), (10, 10), (37, 20), (13, 29), (40, 40)]


@pytest.fixture(scope="module")
def variables():
    return drawn_variables()


@pytest.mark.parametrize(("devices", "parallel"), [(1, "pmap"), (8, "shard_map")])
def test_ten_crops_are_corners_centre_and_mirrored(variables, devices, parallel):
    network = scoring_network(variables, devices, parallel)
    pictures = smooth_pictures(*MANY_SIZES)
    ten_crops = averaged(network, Views(crops=10), RESIZED, pictures)
    centre = averaged(network, Views(), RESIZED, pictures)
    for picture, of_ten, of_centre in zip(pictures, ten_crops, centre, strict=True):
        height, width, _ = picture.shape
        short = min(height, width)
        resized = cv2.resize(
            picture, (10 * width // short, 10 * height // short), interpolation=cv2.INTER_AREA
        )
        crops = [normalized(crop) for crop in corners_and_centre(resized, 8)]
        views = [*crops, *(crop[:, ::-1] for crop in crops)]
        np.testing.assert_allclose(of_ten, one_by_one(variables, views), atol=1e-5)
        np.testing.assert_allclose(of_centre, one_by_one(variables, crops[4:]), atol=1e-5)
    assert np.abs(ten_crops - centre).max() > 1e-3


@pytest.mark.parametrize("devices", [1, 8])
def test_scales_are_whole_pictures(variables, devices):
    network = scoring_network(variables, devices)
    pictures = smooth_pictures((30, 40), (24, 24), (60, 80))  # 3:4 and 1:1 keep their proportions
    scores = averaged(network, Views(scales=(12, 18), flip=True), RESIZED, pictures)
    for picture, row in zip(pictures, scores, strict=True):
        height, width, _ = picture.shape
        views = []
        for scale in (12, 18):
            factor = scale / min(height, width)
            size = round(width * factor), round(height * factor)
            resized = normalized(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
            views += [resized, resized[:, ::-1]]
        np.testing.assert_allclose(row, one_by_one(variables, views), atol=1e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_ten_crops_of_one_size_are_padded_with_the_mean_as_in_training(variables, devices):
    mean = MEAN + np.random.default_rng(5).normal(0, 20, (8, 8, 3))  # a mean picture
    network = scoring_network(variables, devices, mean=mean)
    pictures = smooth_pictures(*[(8, 8)] * 11)
    scores = averaged(network, Views(crops=10), PictureFormat((8, 8, 3), None, 2), pictures)
    for picture, row in zip(pictures, scores, strict=True):
        padded = np.pad((picture - mean) * SCALE, ((2, 2), (2, 2), (0, 0)))
        crops = list(corners_and_centre(padded, 8))
        views = [*crops, *(crop[:, ::-1] for crop in crops)]
        np.testing.assert_allclose(row, one_by_one(variables, views), atol=1e-5)


def test_impossible_views_are_refused():
    one_size = PictureFormat((8, 8, 3), None, 0)
    with pytest.raises(UsageError, match=r"need a padding, and the run's data.crop_padding is 0"):
        view_maker(Views(crops=10), one_size)
    with pytest.raises(UsageError, match=r"scale 7 is too small for crops of 8x8; .* at least 8"):
        view_maker(Views(crops=10, scales=(12, 7)), one_size)
    (picture,) = smooth_pictures((8, 8))
    assert len(view_maker(Views(crops=10, scales=(9, 12)), one_size).images(picture)) == 10
    with pytest.raises(UsageError, match=r"Views.scales is \(8, 8\); they must differ"):
        Views(scales=(8, 8))
    with pytest.raises(UsageError, match=r"Views.scales is \(0,\); each must be at least 1"):
        Views(scales=(0,))
    with pytest.raises(UsageError, match=r"Views.crops is 5; it must be one of 1, 10"):
        Views(crops=5)  # type: ignore[arg-type]
    network = scoring_network(mean=np.zeros((8, 8, 3)))
    maker = view_maker(Views(scales=(9,)), one_size)
    with pytest.raises(UsageError, match="subtracts a mean picture of 8x8"):
        log_probabilities(network, maker, [], 0)


sides = st.integers(1, 300)


@settings(deadline=None, max_examples=200)
@given(height=sides, width=sides, scale=st.integers(6, 100))
def test_whole_pictures_have_few_shapes_and_nearly_their_proportions(height, width, scale):
    picture = np.zeros((height, width, 1), np.uint8)
    rows, columns = resize_whole(picture, scale).shape[:2]
    shorter, longer = min(rows, columns), max(rows, columns)
    assert shorter == scale
    assert (rows > columns) <= (height >= width)
    assert longer in [round(scale * sixths / 6) for sixths in range(6, 25)]
    proportion = min(max(height, width) / min(height, width), 4)
    half_a_pixel = 0.5 / scale
    assert abs(longer / scale - proportion) <= 1 / 12 + half_a_pixel


@pytest.mark.parametrize(("height", "width"), [(31, 47), (40, 23)])
def test_views_by_pillow_are_those_of_torchvision(height: int, width: int):
    by_pillow = PictureFormat((8, 8, 3), 10, 0, "pillow_bicubic")
    (picture,) = smooth_pictures((height, width))
    image = Image.fromarray(picture)

    def resized(scale: int) -> np.ndarray:
        size = (
            (scale, int(scale * height / width))
            if width < height
            else (int(scale * width / height), scale)
        )
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC))

    def crops(pixels: np.ndarray) -> list[np.ndarray]:
        """`FiveCrop(8)` of torchvision."""
        *corners, _ = corners_and_centre(pixels, 8)
        top, left = (round((length - 8) / 2.0) for length in pixels.shape[:2])
        return [*corners, pixels[top : top + 8, left : left + 8]]

    for views, expected in {
        Views(): crops(resized(10))[4:],
        Views(crops=10): crops(resized(10)),
        Views(crops=10, scales=(9, 13)): crops(resized(9)) + crops(resized(13)),
    }.items():
        maker = view_maker(views, by_pillow)
        assert maker.shorter_side is None
        images = maker.images(picture)
        assert len(images) == len(expected)
        assert all(np.array_equal(a, b) for a, b in zip(images, expected, strict=True))
    (whole,) = view_maker(Views(scales=(12,)), by_pillow).images(picture)
    size = whole.shape[1], whole.shape[0]
    assert np.array_equal(whole, np.asarray(image.resize(size, Image.Resampling.BICUBIC)))


def test_a_picture_is_cropped_at_its_centre_to_one_size():
    (picture,) = smooth_pictures((30, 40))
    middle = cv2.resize(picture[:, 4:34], (15, 15), interpolation=cv2.INTER_AREA)
    assert np.array_equal(resize_to_cover(picture, (15, 15)), middle)
    assert resize_to_cover(picture, (10, 20)).shape == (10, 20, 3)
    assert resize_to_cover(picture, (30, 40)) is picture
    assert resize_to_cover(picture[:2, :3], (30, 40)).shape == (30, 40, 3)


def test_memory_does_not_grow_with_the_pictures():
    made = 0

    def pictures():
        nonlocal made
        for number in range(1000):
            made += 1
            yield [np.zeros((8 + number % 3, 8, 1), np.uint8)] * 2

    batched = 0
    for numbers, images in batches_of_one_shape(pictures(), lambda shape: 16):
        assert images.shape[0] == 16
        batched += len(numbers)
        assert 2 * made - batched <= 3 * 16
    assert batched == 2000
