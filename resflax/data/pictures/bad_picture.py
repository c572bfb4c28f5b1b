"""The error for pictures that cannot be decoded, and the limit of their size."""

MOST_PIXELS = 2**27
"""The most pixels that a picture may have. A larger one is refused as damaged, because a few wrong
bytes in a header can ask for more memory than the machine has."""


class BadPicture(ValueError):  # noqa: N818
    """The bytes are not a picture, or one that is damaged or of a kind that is not supported.

    The message is one line.
    """


def check_size(height: int, width: int) -> None:
    """Raises `BadPicture` if a picture has no pixels or more than MOST_PIXELS."""
    if not 0 < height * width <= MOST_PIXELS:
        raise BadPicture(
            f"{height}x{width} pixels; there must be at least 1, at most {MOST_PIXELS}"
        )
