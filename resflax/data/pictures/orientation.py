"""The EXIF orientation of a picture, and turning its pixels upright.

Cameras store the pixels as the sensor saw them, and note in the EXIF data how they are to be turned
and mirrored (Exif 2.3, tag 274). Where the EXIF data say nothing, the XMP data count, as in Pillow.
Data that are damaged or say something else than 1 to 8 change nothing.
"""

import re
import struct

import cv2
import numpy as np

UPRIGHT = 1
"""The orientation of a picture that is not to be turned."""

_TAG = 274
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_INTEGERS = {1: "B", 3: "H", 4: "I"}  # TIFF's types BYTE, SHORT and LONG
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_PNG_XMP = b"XML:com.adobe.xmp\0"


def orientation_in(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation, 1 to 8, that EXIF data note or else XMP data; 1 if neither does."""
    orientation = _in_exif(exif.removeprefix(_EXIF))
    if orientation is None and (match := _IN_XMP.search(xmp)) is not None:
        orientation = int(match[1])
    return orientation if orientation is not None and 1 <= orientation <= 8 else UPRIGHT


def jpeg_orientation(encoded: bytes) -> int:
    """The orientation, 1 to 8, of a JPEG, from its segments before the pixels."""
    exif, xmp = b"", b""
    at, end = 2, len(encoded) - 4
    while at <= end and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker == 0xFF:  # a byte that fills up
            at += 1
            continue
        if marker == 0xDA:  # the pixels follow
            break
        length = encoded[at + 2] << 8 | encoded[at + 3]
        if marker == 0xE1:
            payload = encoded[at + 4 : at + 2 + length]
            if not exif and payload.startswith(_EXIF):
                exif = payload
            elif not xmp and payload.startswith(_XMP):
                xmp = payload
        at += 2 + length
    return orientation_in(exif, xmp) if exif or xmp else UPRIGHT


def png_orientation(encoded: bytes) -> int:
    """The orientation, 1 to 8, of a PNG, from its chunks, of which no pixels are decoded."""
    exif, xmp = b"", b""
    at, end = 8, len(encoded) - 8
    while at <= end:
        length = int.from_bytes(encoded[at : at + 4])
        name = encoded[at + 4 : at + 8]
        if name == b"eXIf":
            exif = encoded[at + 8 : at + 8 + length]
        elif name == b"iTXt" and encoded.startswith(_PNG_XMP, at + 8):
            xmp = encoded[at + 8 : at + 8 + length]
        at += 12 + length
    return orientation_in(exif, xmp) if exif or xmp else UPRIGHT


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns and mirrors pixels (H, W, C) so that they are upright; `pixels` itself if they are."""
    match orientation:
        case 2:
            turned = cv2.flip(pixels, 1)
        case 3:
            turned = cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(pixels, 0)
        case 5:
            turned = cv2.transpose(pixels)
        case 6:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180)
        case 8:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            return pixels
    return turned.reshape(*turned.shape[:2], pixels.shape[2])  # OpenCV drops a single channel


def turn_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """(height, width) of the upright picture whose stored pixels have this height and width."""
    return (width, height) if orientation >= 5 else (height, width)


def _in_exif(data: bytes) -> int | None:
    """The orientation in a TIFF header and its first directory; None if there is none."""
    order = _BYTE_ORDERS.get(data[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", data, place)
            if tag == _TAG:
                if values != 1 or kind not in _INTEGERS:
                    return None
                return int(struct.unpack_from(order + _INTEGERS[kind], data, place + 8)[0])
    except struct.error:  # the data are cut off
        pass
    return None
