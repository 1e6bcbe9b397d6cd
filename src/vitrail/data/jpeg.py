"""The quick way for the common photo: a flawless JPEG that lies upright.

Whatever needs a closer look (a rotation, odd EXIF, XMP, CMYK, damage, too many pixels) is left to
Pillow. The pixels are the same; only the cost of looking is saved, a quarter of decoding a small
photo.
"""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
import simplejpeg  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

_START, _APP1, _SCAN = b"\xff\xd8", 0xE1, 0xDA
_ORIENTATION, _SHORT = 0x0112, 3
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}


def decode_plain_jpeg(data: bytes, max_pixels: int) -> NDArray[np.uint8] | None:
    """Decode a JPEG whose metadata, if any, says plainly that it is upright.

    Args:
        data: The whole file.
        max_pixels: Height times width that is still decoded.

    Returns:
        RGB pixels, shape (H, W, 3), or None where the file needs a closer look.
    """
    if not data.startswith(_START) or not _upright(data):
        return None
    try:
        height, width, colours, _ = cast(
            "tuple[int, int, str, str]", simplejpeg.decode_jpeg_header(data)
        )
        if colours not in {"YCbCr", "Gray"} or not 0 < height * width <= max_pixels:
            return None
        return cast("NDArray[np.uint8]", simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError:
        return None


def _upright(data: bytes) -> bool:
    """Whether no metadata before the pixels could ask for a rotation."""
    place = len(_START)
    while place + 4 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == _SCAN:
            return True
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == _APP1 and not _upright_exif(data[place + 4 : end]):
            return False
        place = end
    return False


def _upright_exif(segment: bytes) -> bool:
    """Whether this is a flawless EXIF block whose first directory says upright, or nothing."""
    tiff = segment[6:]
    if not segment.startswith(b"Exif\0\0") or tiff[:4] not in _BYTE_ORDERS:
        return False
    order = _BYTE_ORDERS[tiff[:4]]
    first = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[first : first + 2], order)
    if first < 8 or count == 0 or len(tiff) < first + 2 + 12 * count:
        return False
    for place in range(first + 2, first + 2 + 12 * count, 12):
        if int.from_bytes(tiff[place : place + 2], order) == _ORIENTATION:
            kind = int.from_bytes(tiff[place + 2 : place + 4], order)
            return kind == _SHORT and int.from_bytes(tiff[place + 8 : place + 10], order) == 1
    return True
