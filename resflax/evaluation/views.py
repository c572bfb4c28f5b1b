"""The views of a picture over which a network's scores are averaged. This file does not import JAX.

A view is a part of a picture, or all of it, that the network sees at one time. The host makes
uint8 images from the picture by resizing and cropping it. The devices normalise each image and make
views from it by shifting and mirroring it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from resflax.data.pictures.resizing import center_crop, resize, resize_shorter
from resflax.declarations.checks import check_types, refuse
from resflax.declarations.data import Resizing
from resflax.errors import UsageError


@dataclass(frozen=True)
class Views:
    """The views of each picture. Softmax probabilities are averaged over all of them.

    Pictures of different sizes are resized first: their shorter side becomes `test_shorter_side` of
    the data, or each of the lengths in `scales`.
    """

    crops: Literal[1, 10] = 1
    """10: the four corners and the centre, and the same five mirrored (Krizhevsky et al. 2012,
    section 4.1). 1: only the centre. With `scales`, 1 means the whole picture: the network is
    applied to it as a convolution, and its last maps are averaged over all places (He et al. 2015,
    section 3.4)."""

    scales: tuple[int, ...] = ()
    """Lengths of the shorter side in pixels (He et al. 2015, Table 4: 224, 256, 384, 480, 640)."""

    flip: bool = False
    """Whether each view is also used mirrored left to right. With ten crops, it always is."""

    def __post_init__(self) -> None:
        """Raises `UsageError` for a wrong type or value."""
        check_types(self)
        if any(not 1 <= scale <= 4096 for scale in self.scales):
            refuse(self, "scales", "each must be at least 1 and at most 4096 pixels")
        if len(set(self.scales)) < len(self.scales):
            refuse(self, "scales", "they must differ")

    @property
    def mirrored(self) -> bool:
        """Whether half of the views are mirrored."""
        return self.flip or self.crops == 10

    @property
    def whole_pictures(self) -> bool:
        """Whether the network sees whole pictures, whose sizes differ from the training images'."""
        return self.crops == 1 and bool(self.scales)


class Shift(NamedTuple):
    """The position of a view on a normalised image, and whether the view is mirrored.

    The view has the size of the image. Where it reaches beyond the image, it is zero, which is the
    mean colour of the training pictures.
    """

    down: int
    """Rows from the image's first row to the view's first row."""
    right: int
    """Columns from the image's first column to the view's first column."""
    mirrored: bool
    """Whether the view is then mirrored left to right."""


class PictureFormat(NamedTuple):
    """The format of the pictures that a network was trained on."""

    shape: tuple[int, int, int]
    """(H, W, C)."""
    shorter_side: int | None
    """Length to which a test picture's shorter side is resized before its centre (H, W) is cropped.
    None: all pictures of the data have the size (H, W)."""
    padding: int
    """Number of pixels by which each side was padded in training before the random crop."""
    resize: Resizing = "opencv"
    """How pictures are resized."""

    @property
    def size(self) -> tuple[int, int]:
        """The size (H, W)."""
        return self.shape[:2]


class ViewMaker(NamedTuple):
    """Makes the views of a picture: one view for each image and each shift."""

    images: Callable[[np.ndarray], list[np.ndarray]]
    """Makes images (h, w, C) uint8 from a picture (H, W, C) uint8 of any size."""
    shifts: tuple[Shift, ...]
    """The shifts that are applied to every image."""
    one_size: bool
    """Whether the images of all pictures have the size that the network was trained on."""
    shorter_side: int | None
    """The shorter side, in pixels, below which a picture must not be decoded. None: no picture may
    be decoded at a reduced scale."""


def view_maker(views: Views, picture_format: PictureFormat) -> ViewMaker:
    """Decides how the views are made. Raises `UsageError` for views that are impossible."""
    size, by = picture_format.size, picture_format.resize
    for scale in views.scales:
        if views.crops == 10 and scale < max(size):
            raise UsageError(
                f"scale {scale} is too small for crops of {size[0]}x{size[1]}; it must be at least "
                f"{max(size)}"
            )
    directions = (False, True) if views.mirrored else (False,)
    shifts = tuple(Shift(0, 0, mirrored) for mirrored in directions)
    scales = views.scales
    if not scales and picture_format.shorter_side is not None:
        scales = (picture_format.shorter_side,)
    if not scales:
        if views.crops == 10:
            shifts = ten_crop_shifts(picture_format.padding)
        return ViewMaker(
            lambda picture: [resize_to_cover(picture, size, by)],
            shifts,
            one_size=True,
            shorter_side=max(size) if by == "opencv" else None,
        )
    if views.whole_pictures:
        return ViewMaker(
            lambda picture: [resize_whole(picture, scale, by) for scale in scales],
            shifts,
            one_size=False,
            shorter_side=max(scales) if by == "opencv" else None,
        )
    crop = five_crops if views.crops == 10 else _centre_alone

    def crops_of_all_scales(picture: np.ndarray) -> list[np.ndarray]:
        resized = [resize_shorter(picture, scale, by) for scale in scales]
        return [image for picture in resized for image in crop(picture, size, by)]

    least = max(scales) if by == "opencv" else None
    return ViewMaker(crops_of_all_scales, shifts, one_size=True, shorter_side=least)


def ten_crop_shifts(padding: int) -> tuple[Shift, ...]:
    """The shifts for ten crops of a padded picture: its corners and centre, plain and mirrored.

    The crops have the size that the picture had before it was padded by `padding` pixels. Raises
    `UsageError` if the padding is 0, because only two of the ten crops would then differ.
    """
    if padding == 0:
        raise UsageError(
            "ten crops of pictures of one size need a padding, and the run's data.crop_padding is "
            "0; average over mirrored pictures with --flip, or crop enlarged ones with --scales"
        )
    ends = (-padding, padding)
    places = [(down, right) for down in ends for right in ends] + [(0, 0)]
    return tuple(Shift(*place, mirrored) for mirrored in (False, True) for place in places)


def resize_to_cover(
    picture: np.ndarray, size: tuple[int, int], by: Resizing = "opencv"
) -> np.ndarray:
    """Resizes a picture until it just covers `size`, and crops its centre to `size`."""
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    scale = max(size[0] / height, size[1] / width)
    covering = (max(size[0], round(height * scale)), max(size[1], round(width * scale)))
    return center_crop(resize(picture, *covering, by), *size, by)


def five_crops(
    picture: np.ndarray, size: tuple[int, int], by: Resizing = "opencv"
) -> list[np.ndarray]:
    """The four corners and the centre of a picture (H, W, C); each crop is (*size, C)."""
    (height, width), (rows, columns) = picture.shape[:2], size
    corners = [
        picture[top : top + rows, left : left + columns]
        for top in (0, height - rows)
        for left in (0, width - columns)
    ]
    return [*corners, center_crop(picture, *size, by)]


def _centre_alone(picture: np.ndarray, size: tuple[int, int], by: Resizing) -> list[np.ndarray]:
    return [center_crop(picture, *size, by)]


_LONGEST = 4  # greatest ratio of the longer side to the shorter side of a whole picture
_PARTS = 6  # ratios are rounded to sixths; 4:3 and 3:2, the most common ones, are whole sixths


def resize_whole(picture: np.ndarray, scale: int, by: Resizing = "opencv") -> np.ndarray:
    """Resizes a whole picture until its shorter side has `scale` pixels.

    The longer side becomes 6/6, 7/6, 8/6, ... of the shorter one, because the network is compiled
    anew for every shape. This changes the proportions by at most a twelfth, and those of 1:1, 4:3
    and 3:2 not at all. If the longer side is more than four times the shorter one, it is cropped at
    both ends.
    """
    height, width = picture.shape[:2]
    short, long = min(height, width), max(height, width)
    if long > _LONGEST * short:
        long = _LONGEST * short
        picture = center_crop(picture, min(height, long), min(width, long))
    longer = round(scale * round(_PARTS * long / short) / _PARTS)
    rows, columns = (scale, longer) if height <= width else (longer, scale)
    return resize(picture, rows, columns, by)
