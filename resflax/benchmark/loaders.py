"""How others decode the same pictures, crop them at random and make batches of them."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from resflax.data.crops import random_box

Encoded = Sequence[bytes]
"""Pictures in files' formats."""

Load = Callable[[Encoded, int, int, int, int], int]
"""(pictures, side of the crops, batch size, workers, count) -> count, when so many are loaded."""


def pillow(encoded: bytes, size: int, draw: np.random.Generator) -> np.ndarray:
    """(size, size, 3) uint8, as torchvision's RandomResizedCrop does it: bilinear, antialiased."""
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    top, left, rows, columns = random_box(image.height, image.width, draw)
    box = (left, top, left + columns, top + rows)
    return np.asarray(image.crop(box).resize((size, size), Image.Resampling.BILINEAR))


class _TorchSet:
    """What PyTorch's loader takes pictures from."""

    def __init__(self, encoded: Encoded, size: int, count: int) -> None:
        self.encoded, self.size, self.count = encoded, size, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        draw = np.random.default_rng(index)
        return np.array(pillow(self.encoded[index % len(self.encoded)], self.size, draw))


def torchs(encoded: Encoded, size: int, batch_size: int, workers: int, count: int) -> int:
    """Loads `count` pictures by PyTorch's DataLoader, which decodes by Pillow."""
    from torch.utils.data import DataLoader

    found: Any = _TorchSet(encoded, size, count)
    loader: Any = DataLoader(found, batch_size=batch_size, num_workers=workers)
    for _ in loader:
        pass
    return count


def tensorflows(encoded: Encoded, size: int, batch_size: int, workers: int, count: int) -> int:
    """Loads `count` pictures, all of them JPEGs, by `tf.data` as Flax's ImageNet example does.

    Only the crop's part of a JPEG is decoded; it is resized bilinearly, without antialiasing.
    """
    import tensorflow as tf

    def crop(picture: Any) -> Any:
        begin, size_of_box, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(picture),
            tf.zeros((1, 0, 4)),
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        box = tf.concat([begin[:2], size_of_box[:2]], 0)
        part = tf.io.decode_and_crop_jpeg(picture, box, channels=3)
        return tf.cast(tf.image.resize(part, (size, size)), tf.uint8)

    pictures = tf.data.Dataset.from_tensor_slices(list(encoded)).repeat().take(count)
    batches = pictures.map(crop, num_parallel_calls=workers).batch(batch_size)
    batches = batches.prefetch(tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    for _ in batches.with_options(options):
        pass
    return count
