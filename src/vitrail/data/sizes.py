"""Sizes of many images, from their headers."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from vitrail.data.decode import image_size
from vitrail.data.files import Place
from vitrail.errors import BadSampleError
from vitrail.machine import usable_cores
from vitrail.types import Grid

_PNG = b"\x89PNG\r\n\x1a\n"
_TURNING = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""Beginnings of the parts of a PNG that may ask for a rotation."""

_THREADS = 8


def header_sizes(places: Sequence[Place]) -> list[Grid | None]:
    """Height and width of each upright image; None for one that cannot be read."""
    if not places:
        return []
    with ThreadPoolExecutor(min(_THREADS, 2 * math.ceil(usable_cores()))) as threads:
        return list(threads.map(_size, places, chunksize=64))


def _size(place: Place) -> Grid | None:
    storage, path = place
    try:
        data = storage.read(path)
        return _png_size(data) or image_size(data)
    except BadSampleError:
        return None


def _png_size(data: bytes) -> Grid | None:
    """Size of a PNG that nothing turns; None for all else.

    Pillow decodes a PNG to see whether a rotation stands behind its pixels.
    """
    if not data.startswith(_PNG) or len(data) < 24 or any(word in data for word in _TURNING):
        return None
    width, height = struct.unpack(">II", data[16:24])
    return (height, width) if width and height else None
