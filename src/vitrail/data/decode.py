"""From the bytes of a file to upright RGB pixels, on purpose for every kind of file.

What is done, so that nobody has to guess:

- EXIF orientation is applied; a damaged EXIF block counts as upright.
- Alpha and transparent colours are laid over white.
- CMYK, YCCK, LAB and palettes are converted by Pillow; colour profiles (ICC) are ignored.
- 16-bit grey keeps its upper 8 bits (`>> 8`); 32-bit integer grey is taken as 16-bit, clipped.
- Float grey is 0 to 1 where no value is above 1, else 0 to 255, clipped; NaN is 0.
- Of an animation the first frame counts.
- Of a PNG whose data stream breaks, what came before the break counts, as in a browser; one that
  is merely cut off is refused, as are all other damaged files.

A file is opened only by the parsers of `FORMATS`. Left out are those that run other programs
(EPS: Ghostscript), that only describe where pixels lie (WMF, HDF5, GRIB, BUFR, MCIDAS, IPTC) or
that are no picture format in use (MPEG, PCD, SPIDER, ICNS).
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from typing import Any, cast

import numpy as np
import simplejpeg  # pyright: ignore[reportMissingTypeStubs]
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.PsdImagePlugin import PsdImageFile
from torch import Tensor

from vitrail.data.jpeg import decode_plain_jpeg
from vitrail.errors import BadSampleError

FORMATS: tuple[str, ...] = (
    *("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "PPM", "JPEG2000", "TGA"),
    *("QOI", "ICO", "CUR", "DDS", "PSD", "SGI", "PCX", "DCX", "SUN", "XBM", "XPM", "DIB"),
    *("BLP", "FLI", "FTEX", "GBR", "FITS", "IM", "IMT", "MSP", "PIXAR", "XVTHUMB"),
)
"""The formats that are read, by their names in Pillow; no other parser is ever started."""

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    """
    .apng .avif .avifs .blp .bmp .bw .cur .dcx .dds .dib .fit .fits .flc .fli .ftc .ftu .gbr
    .gif .ico .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo .msp .pbm .pcx .pgm
    .png .pnm .ppm .psd .pxr .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .webp .xbm .xpm
    """.split()  # noqa: SIM905 one word a suffix
)
"""Endings of file names that promise an image, in lower case."""

MAX_PIXELS = 178_956_970
"""Pixels above which a file is refused before it is decoded (half a gigabyte of RGB)."""

Pixels = NDArray[np.uint8]

_ORIENTATION = 0x0112


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> UInt8[Tensor, "3 H W"]:
    """Decode one image file to upright RGB.

    Plain JPEGs go through libjpeg-turbo with the exact transforms (the pixels are Pillow's,
    bit by bit), everything else through Pillow.

    Args:
        data: The whole file.
        max_pixels: Height times width that is still accepted, checked before decoding.

    Returns:
        Pixels, 0 to 255. The memory lies row by row, pixel by pixel (channels last).

    Raises:
        BadSampleError: the bytes are no image that can be used; the message is the reason.
    """
    try:
        pixels = decode_plain_jpeg(data, max_pixels)
        if pixels is None:
            with _quiet:
                pixels = _decode(data, max_pixels)
    except BadSampleError:
        raise
    except Exception as error:
        raise BadSampleError(_reason(error)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]


def image_size(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of the upright image, from the header alone.

    Raises:
        BadSampleError: no header that can be used, or more pixels than allowed.
    """
    try:
        with _quiet, _open(data, max_pixels) as image:
            # Pillow turns TIFF files by itself and states the size after that.
            turned = image.format != "TIFF" and _orientation(image) >= 5
            return image.size if turned else (image.height, image.width)
    except BadSampleError:
        raise
    except Exception as error:
        raise BadSampleError(_reason(error)) from error


def _decode(data: bytes, max_pixels: int) -> Pixels:
    with _open(data, max_pixels) as image:
        if image.format in {"JPEG", "MPO"} and image.mode in {"RGB", "L"}:
            orientation = _orientation(image)
            pixels = _decode_jpeg(data)
            if pixels is not None and pixels.shape[:2] == (image.height, image.width):
                return _upright(pixels, orientation)
        _load(image)
        if image.width * image.height > max_pixels:  # an icon may hold more than its header says
            raise _too_large(image, max_pixels)
        return _upright(_to_rgb(image), _orientation(image))


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise BadSampleError("the file is empty")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width < 1 or image.height < 1:
        raise BadSampleError("the image has no pixels")
    if image.width * image.height > max_pixels:
        raise _too_large(image, max_pixels)
    return image


def _too_large(image: Image.Image, max_pixels: int) -> BadSampleError:
    return BadSampleError(
        f"the image is too large ({image.width} x {image.height}; "
        f"at most {max_pixels:,} pixels are read): make it smaller"
    )


def _load(image: Image.Image) -> None:
    if isinstance(image, PsdImageFile):
        assert image.n_frames > 0, "reading the layers must not fail either"
    try:
        image.load()
    except (OSError, SyntaxError):
        if not isinstance(image, PngImageFile):
            raise
        image.load()  # succeeds where the pixels before the damage were decoded


def _decode_jpeg(data: bytes) -> Pixels | None:
    """Pixels of a flawless JPEG; Pillow decides about all others."""
    try:
        return cast("Pixels", simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError:
        return None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 a damaged EXIF block may raise anything, and says nothing
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the camera's rotation (EXIF 2.3, tag 0x0112: values 1 to 8)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):
        return _grey_to_rgb(image, (np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=255.0)
        scale = 255.0 if values.max() <= 1 else 1.0
        return _grey_to_rgb(image, np.clip(np.rint(values * scale), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _grey_to_rgb(image: Image.Image, grey: Pixels) -> Pixels:
    transparent: Any = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[np.asarray(image) == transparent] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    if isinstance(error, Image.DecompressionBombError):
        return "the image is too large: make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, MemoryError):
        return "the image does not fit into memory: make it smaller"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "the image is cut off before its end"
    return f"the image is damaged ({text or type(error).__name__})"


class _Quiet:
    """Silence Pillow's warnings while any thread decodes.

    `warnings.catch_warnings` alone is not safe with threads: two that overlap may restore each
    other's filters. So the first one in saves the filters, and the last one out restores them.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._count == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                self._saved.__exit__(None, None, None)


_quiet = _Quiet()
