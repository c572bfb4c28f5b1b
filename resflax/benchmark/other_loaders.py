"""Loaders of other libraries. They decode the same pictures, crop them at random and batch them."""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from resflax.data.crops import random_box
from resflax.data.draws import Doubles

EncodedPictures = Sequence[bytes]
"""The bytes of picture files, such as JPEGs."""

LoadPictures = Callable[[EncodedPictures, int, int, int, int], int]
"""Loads pictures: (pictures, side of the crops, batch size, number of workers, count) -> count.

It returns when `count` pictures are loaded, and repeats the given ones if they are fewer."""


class OtherLoader(NamedTuple):
    """A loader of another library."""

    name: str
    """The name that tables show."""
    module: str
    """The Python module that must be installed."""
    workers: tuple[str, str]
    """What tables call one worker, and several."""
    load: LoadPictures


def random_crop_by_pillow(encoded: bytes, side: int, doubles: Doubles) -> np.ndarray:
    """Makes a random crop (side, side, 3) uint8 as torchvision's RandomResizedCrop does.

    The crop is resized bilinearly, with antialiasing.
    """
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    top, left, rows, columns = random_box(image.height, image.width, doubles)
    box = (left, top, left + columns, top + rows)
    return np.asarray(image.crop(box).resize((side, side), Image.Resampling.BILINEAR))


class _TorchDataset:
    """The pictures as a data set for PyTorch's DataLoader, repeated up to a count."""

    def __init__(self, encoded: EncodedPictures, side: int, count: int) -> None:
        self.encoded, self.side, self.count = encoded, side, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        picture = self.encoded[index % len(self.encoded)]
        return np.array(random_crop_by_pillow(picture, self.side, Doubles(np.random.PCG64(index))))


def load_by_torch(
    encoded: EncodedPictures, side: int, batch_size: int, workers: int, count: int
) -> int:
    """Loads `count` pictures with PyTorch's DataLoader, which decodes them with Pillow."""
    from torch.utils.data import DataLoader

    dataset: Any = _TorchDataset(encoded, side, count)
    batches: Any = DataLoader(dataset, batch_size=batch_size, num_workers=workers)
    for _ in batches:
        pass
    return count


def load_by_tf_data(
    encoded: EncodedPictures, side: int, batch_size: int, workers: int, count: int
) -> int:
    """Loads `count` pictures with `tf.data`, as Flax's ImageNet example does; all must be JPEGs.

    Only the cropped part of a JPEG is decoded. It is resized bilinearly, without antialiasing.
    """
    import tensorflow as tf

    def random_crop(picture: Any) -> Any:
        begin, box_size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(picture),
            tf.zeros((1, 0, 4)),
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        box = tf.concat([begin[:2], box_size[:2]], 0)
        part = tf.io.decode_and_crop_jpeg(picture, box, channels=3)
        return tf.cast(tf.image.resize(part, (side, side)), tf.uint8)

    pictures = tf.data.Dataset.from_tensor_slices(list(encoded)).repeat().take(count)
    batches = pictures.map(random_crop, num_parallel_calls=workers).batch(batch_size)
    batches = batches.prefetch(tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    for _ in batches.with_options(options):
        pass
    return count


TORCH = OtherLoader(
    "PyTorch DataLoader", "torch.utils.data", ("process", "processes"), load_by_torch
)
TF_DATA = OtherLoader("tf.data", "tensorflow", ("thread", "threads"), load_by_tf_data)
"""`tf.data`, which reads JPEGs only."""
