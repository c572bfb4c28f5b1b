"""Which views of a picture a network's scores are averaged over. Nothing here imports JAX."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from resflax.data.pictures import resize, resize_shorter
from resflax.declarations.checks import check_types, refuse
from resflax.errors import UsageError


@dataclass(frozen=True)
class Views:
    """The views of each picture; softmax probabilities are averaged over all of them.

    Pictures of different sizes are resized first, their shorter side to the data's
    `test_shorter_side` or to each of `scales`.
    """

    crops: Literal[1, 10] = 1
    """10: the four corners, the centre, and the five mirrored (Krizhevsky et al. 2012, section
    4.1). 1: the centre; with `scales` the whole picture, which the network is applied to as a
    convolution, its last maps averaged over all places (He et al. 2015, section 3.4)."""

    scales: tuple[int, ...] = ()
    """Shorter sides in pixels (He et al. 2015, Table 4: 224, 256, 384, 480, 640)."""

    flip: bool = False
    """Each view mirrored left to right as well, as ten crops are anyway."""

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
    def whole(self) -> bool:
        """Whether the network sees whole pictures, of a size that it was not trained on."""
        return self.crops == 1 and bool(self.scales)


class Shift(NamedTuple):
    """A normalised picture moved within its frame: zero, the mean colour, where it has left."""

    down: int
    """Rows by which the view begins below the picture's first."""
    right: int
    mirrored: bool


class Frame(NamedTuple):
    """What pictures a network was trained on."""

    shape: tuple[int, int, int]
    """(H, W, C)."""
    shorter: int | None
    """To which a test picture's shorter side is resized, before (H, W) is cut out of its centre.
    None: all pictures of the data have that size."""
    padding: int
    """By which they were padded in training, and cropped back."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.shape[:2]


class Cutting(NamedTuple):
    """How the views of a picture are made: cut out on the host, shifted on the device."""

    cut: Callable[[np.ndarray], list[np.ndarray]]
    """Of a picture (H, W, C) uint8 in any size."""
    shifts: tuple[Shift, ...]
    """Of everything that was cut."""
    alike: bool
    """Whether all that is cut, of any picture, has the frame's size."""
    shorter: int
    """The shorter side below which a picture must not be decoded."""


def cutting(views: Views, frame: Frame) -> Cutting:
    """How the views are made. Raises `UsageError` if there are none such."""
    size = frame.size
    for scale in views.scales:
        if views.crops == 10 and scale < max(size):
            raise UsageError(
                f"scale {scale} is too small for crops of {size[0]}x{size[1]}; it must be at least "
                f"{max(size)}"
            )
    directions = (False, True) if views.mirrored else (False,)
    shifts = tuple(Shift(0, 0, mirrored) for mirrored in directions)
    scales = views.scales or ((frame.shorter,) if frame.shorter is not None else ())
    if not scales:
        if views.crops == 10:
            shifts = padded_shifts(frame.padding)
        return Cutting(lambda picture: [fit(picture, size)], shifts, True, max(size))
    if views.whole:
        return Cutting(lambda p: [whole(p, s) for s in scales], shifts, False, max(scales))

    def cut(picture: np.ndarray) -> list[np.ndarray]:
        resized = [resize_shorter(picture, scale) for scale in scales]
        if views.crops == 1:
            return [center(one, size) for one in resized]
        return [crop for one in resized for crop in five_crops(one, size)]

    return Cutting(cut, shifts, True, max(scales))


def padded_shifts(padding: int) -> tuple[Shift, ...]:
    """The ten crops of a picture padded by so many pixels, each of the picture's own size.

    Raises `UsageError` without padding: then there is nothing to crop.
    """
    if padding == 0:
        raise UsageError(
            "ten crops of pictures of one size need a padding, and the run's data.crop_padding is "
            "0; average over mirrored pictures with --flip, or crop enlarged ones with --scales"
        )
    ends = (-padding, padding)
    places = [(down, right) for down in ends for right in ends] + [(0, 0)]
    return tuple(Shift(*place, mirrored) for mirrored in (False, True) for place in places)


def fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The centre of a picture in a size, as much of it as has these proportions."""
    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    scale = max(size[0] / height, size[1] / width)
    covering = (max(size[0], round(height * scale)), max(size[1], round(width * scale)))
    return center(resize(picture, *covering), size)


def center(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle (*size, C) of a picture (H, W, C)."""
    top, left = ((whole - part) // 2 for whole, part in zip(picture.shape, size, strict=False))
    return picture[top : top + size[0], left : left + size[1]]


def five_crops(picture: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """The four corners and the centre of (H, W, C), each (*size, C)."""
    (height, width), (rows, columns) = picture.shape[:2], size
    corners = [
        picture[top : top + rows, left : left + columns]
        for top in (0, height - rows)
        for left in (0, width - columns)
    ]
    return [*corners, center(picture, size)]


_LONGEST = 4  # times the shorter side
_PARTS = 6  # photographs are mostly 4:3 and 3:2, which are sixths


def whole(picture: np.ndarray, scale: int) -> np.ndarray:
    """The picture with its shorter side resized to `scale`.

    So that few shapes have to be compiled, the longer side becomes 6/6, 7/6, 8/6, ... of it: that
    changes the proportions by at most a twelfth, and those of 1:1, 4:3 and 3:2 not at all. What is
    longer than four times the shorter side is cut off at both ends.
    """
    height, width = picture.shape[:2]
    short, long = min(height, width), max(height, width)
    if long > _LONGEST * short:
        long = _LONGEST * short
        picture = center(picture, (min(height, long), min(width, long)))
    longer = round(scale * round(_PARTS * long / short) / _PARTS)
    return resize(picture, *((scale, longer) if height <= width else (longer, scale)))
