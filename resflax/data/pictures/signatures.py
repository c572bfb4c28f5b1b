"""Recognises pictures by the first bytes of their files."""

import contextlib
import os

from PIL import Image, ImageFile

_PREFIX = 16  # bytes, as many as Pillow gives to its formats' `accept` functions


def is_picture(path: str) -> bool:
    """Whether a file begins like a picture in a format that Pillow decodes here.

    Only the header is read, so the rest may still be damaged. Raises `OSError` if the file cannot
    be read.
    """
    Image.init()
    with open(path, "rb") as file:
        prefix, ending = file.read(_PREFIX), os.path.splitext(path)[1].lower()
        formats = [name for name in Image.OPEN if _may_be(name, prefix, ending)]
        if not formats:
            return False
        try:
            with Image.open(file, formats=formats) as image:
                return not isinstance(image, ImageFile.StubImageFile)  # Pillow cannot decode stubs
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            return True  # its decoder will say that it is too large
        except Exception:  # of many types, for files that only begin like a picture
            return False


def _may_be(name: str, prefix: bytes, ending: str) -> bool:
    """Whether a file with this prefix and ending may be of the format that Pillow calls `name`.

    A few formats have no signature; only a file with their own ending may be of these.
    """
    if not Image.MIME.get(name, "image/").startswith("image/"):  # MPEG, PostScript
        return False
    accept = Image.OPEN[name][1]
    if accept is None:
        return Image.EXTENSION.get(ending) == name
    with contextlib.suppress(Exception):  # some expect more bytes than a small file has
        accepted = accept(prefix)
        return bool(accepted) and not isinstance(accepted, str)  # a text says what is missing
    return False
