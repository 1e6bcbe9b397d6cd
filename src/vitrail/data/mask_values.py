"""Mask files whose values or colours tell the class of each pixel.

What the files hold decides how they are read, and is said: 0 and 255 (or 0 and 1, or one bit) are a
binary mask; other grey values and palettes are indices; colours need a palette file. Unless a file
names them, 0 is background, 255 is void, and the class of 3 is called `class 3`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, Integer
from PIL import Image, UnidentifiedImageError

from vitrail.data.decode import FORMATS, MAX_PIXELS
from vitrail.data.mask_classes import Meaning
from vitrail.data.segments import Drawing, MaskValueError, hashed
from vitrail.data.storage import Storage
from vitrail.errors import BadSampleError
from vitrail.types import VOID, Segments

Values = Integer[np.ndarray, "H W"]


@dataclass(frozen=True, slots=True)
class Kind:
    """How mask files are read.

    Attributes:
        name: For people.
        meaning: Of values or colours.
        colours: Whether the values are colours, as 0xRRGGBB.
        cut: Grey from which on a value counts as 1, below as 0; None where values are as stored.
        source: The file that names the classes; empty where none does.
    """

    name: str
    meaning: Meaning
    colours: bool = False
    cut: int | None = None
    source: str = ""


@dataclass(frozen=True)
class FileMask(Drawing):
    """A mask file, one segment a class that it shows."""

    storage: Storage
    path: str
    kind: Kind

    def draw(self) -> Segments:
        """Read the file."""
        try:
            data = self.storage.read(self.path)
            values = mask_values(data, colours=self.kind.colours)
        except BadSampleError as error:
            raise type(error)(f"the mask {self.path}: {error}") from error
        if self.kind.cut is None and is_lossy(data):
            raise MaskValueError(smeared(self.path))
        if self.kind.cut is not None:
            if values.max() == 1 and not is_lossy(data):  # noise of JPEG is no foreground
                raise MaskValueError(
                    f"the mask {self.path} has 1 for foreground, the others 255; write 255"
                )
            values = (values >= self.kind.cut).astype(np.uint8)
        try:
            return from_values(values, self.kind.meaning)
        except UnknownValueError as error:
            raise MaskValueError(unnamed(self.path, error.value, self.kind)) from error

    def digest(self) -> str:
        """A hash of the file and of what it means."""
        try:
            data = self.storage.read(self.path)
        except BadSampleError as error:
            data = str(error).encode()
        kind = self.kind
        return hashed(data, str(sorted(kind.meaning.items())), f"{kind.colours} {kind.cut}")


class UnknownValueError(ValueError):
    """A value of a mask that nothing gives a meaning."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


def unnamed(path: str, value: int, kind: Kind) -> str:
    """What is wrong with a mask that has a value without a meaning, for people."""
    what = f"colour {_colour(value)}" if kind.colours else f"value {value}"
    if kind.source:
        return f"the mask {path} has the {what}, which {kind.source} does not name; add it there"
    return f"the mask {path} has the {what}, which no other mask had; correct it"


def smeared(path: str) -> str:
    """What is wrong with a mask that was stored with loss, for people."""
    return f"the mask {path} is of a lossy format, which smears values; save masks as PNG"


def is_lossy(data: bytes) -> bool:
    """Whether a file is a JPEG or a lossy WebP, whose pixels are near those that were saved."""
    return data.startswith(b"\xff\xd8") or (data[8:12] == b"WEBP" and b"VP8 " in data[12:64])


def mask_values(data: bytes, *, colours: bool = False) -> Values:
    """The values of a mask as they are stored: indices of a palette, greys, bits as 0 and 1.

    Args:
        data: The whole file.
        colours: Give colours, as 0xRRGGBB, of a file that has them.

    Raises:
        BadSampleError: it cannot be read, or has colours where values are wanted.
    """
    if not data:
        raise BadSampleError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadSampleError(f"{image.width} x {image.height} pixels are too many")
            _check_alpha(image)
            image.info.pop("transparency", None)  # of palettes; Pillow warns where it is dropped
            if colours:
                red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.int32), -1, 0)
                return red << 16 | green << 8 | blue
            return _greys(image)
    except BadSampleError:
        raise
    except UnidentifiedImageError as error:
        raise BadSampleError("no mask that can be read (of no known format)") from error
    except Exception as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadSampleError(f"no mask that can be read ({text})") from error


def from_values(values: Values, meaning: Meaning) -> Segments:
    """One segment for each class that a mask shows, in the order of the classes; void comes last.

    Raises:
        UnknownValueError: a value has no meaning.
    """
    codes = _codes(values, meaning)
    present = np.flatnonzero(np.bincount(codes.ravel(), minlength=2)).tolist()
    # Codes are 0 for background, 1 for void, then the classes; background stays 0.
    labels = [code - 2 for code in present if code >= 2] + [VOID] * (1 in present)
    numbers = np.zeros(max(present) + 1, dtype=np.int16)
    for number, label in enumerate(labels, 1):
        numbers[label + 2] = number
    ids = torch.from_numpy(numbers[codes])  # pyright: ignore[reportUnknownMemberType]
    return Segments(ids[None], tuple(labels))


def _check_alpha(image: Image.Image) -> None:
    """Transparency is passed over, so it may say nothing that colours do not."""
    if image.mode not in {"RGBA", "LA"}:
        return
    seen = np.asarray(image.getchannel("A")) >= 128
    if seen.all() or not seen.any():
        return
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.int64), -1, 0)
    colours = red << 16 | green << 8 | blue
    if np.intersect1d(colours[seen], colours[~seen]).size:
        raise MaskValueError(
            "pixels of one colour are both opaque and transparent; save it without transparency"
        )


def _greys(image: Image.Image) -> Values:
    if image.mode == "1":
        # Bits as bools carry bytes of 255, which some libraries trip over.
        return (np.asarray(image.convert("L")) >= 128).astype(np.uint8)
    if image.mode in {"P", "L"}:
        return np.asarray(image)
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.int64)
    if image.mode == "LA":
        return np.asarray(image.getchannel("L"))
    if image.mode in {"RGB", "RGBA"}:
        pixels = np.asarray(image.convert("RGB"))
        if (pixels == pixels[:, :, :1]).all():
            return pixels[:, :, 0]
        raise MaskValueError("it has colours, the others have grey values")
    raise BadSampleError(f"pixels of kind {image.mode}; save it as a grey or palette PNG")


def _codes(values: Values, meaning: Meaning) -> Int64[np.ndarray, "H W"]:
    """0 for background, 1 for void, 2 and on for classes."""
    known = np.array(sorted(meaning), dtype=np.int64)
    code = {value: 0 if label is None else label + 2 for value, label in meaning.items()}
    codes = np.array([code[value] for value in known.tolist()], dtype=np.int64)
    if values.dtype == np.uint8:
        table = np.full(256, -1, dtype=np.int64)
        table[known[known < 256]] = codes[known < 256]
        found = table[values]
    else:
        place = np.searchsorted(known, values).clip(0, len(known) - 1)
        found = np.where(known[place] == values, codes[place], -1)
    unknown = found < 0
    if unknown.any():
        raise UnknownValueError(int(values[unknown][0]))
    return found


def _colour(value: int) -> str:
    return f"({value >> 16}, {value >> 8 & 255}, {value & 255})"
