"""Pictures like photographs, and their encoding, for tests."""

import io

import numpy as np
from PIL import Image


def photo(height: int = 60, width: int = 80, channels: int = 3, seed: int = 0) -> np.ndarray:
    """(height, width, channels) uint8, smooth as photographs are, with some noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (4, 5, channels), dtype=np.uint8)
    image = np.stack(
        [
            np.asarray(Image.fromarray(coarse[..., c]).resize((width, height), 3))
            for c in range(channels)
        ],
        -1,
    )
    return np.clip(image + generator.integers(-3, 4, image.shape), 0, 255).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, file_format: str = "jpeg", **options: object) -> bytes:
    """The bytes of a picture's file, as Pillow writes it with these options."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()
