"""Tells whether a data declaration shows a network too little of the test pictures."""

from resflax.declarations.data import LARGEST_SIZE, Data, Streamed


def crop_notes(data: Data) -> list[str]:
    """Returns a line if tests show less than half of the width and of the height of a picture.

    That is hardly ever meant, and comes about when only `image_size` is made smaller.
    """
    if not isinstance(data, Streamed) or 2 * data.image_size >= data.test_shorter_side:
        return []
    size = data.image_size
    return [
        f"tests see only the middle {size}x{size} pixels of pictures whose shorter side is "
        f"{data.test_shorter_side}; for nearly the whole picture, set data.test_shorter_side to "
        f"{min(size * 8 // 7, LARGEST_SIZE)}"
    ]
