"""The pictures of a report: pixels as data URIs."""
# pyright: reportUnknownMemberType=false
# Parts of matplotlib and Pillow have no types.

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from vitrail.types import Corners, Grid

SMALL = 64
"""An image of at most this side is shown in big square pixels instead of a blur."""
WIDE = 2.5
"""From this width over height on an image is a line, which needs a row of the page for itself."""
LONGEST_LINE = 640


MarkKind = Literal["truth", "right", "wrong", "missed"]
"""An object; an answer that is right, or wrong; an object that no answer is about."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A box that the page draws over a picture.

    Attributes:
        kind: What it stands for.
        text: What is written at it where there is room, and told to the pointer.
        left: Share of the picture's width.
        top: Share of its height.
        width: Share of its width.
        height: Share of its height.
    """

    kind: MarkKind
    text: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Picture:
    """An image for the page.

    Attributes:
        uri: The data URI.
        width: Pixels.
        height: Pixels.
        pixelated: Whether enlarging keeps square pixels.
        marks: Boxes over it, the lowest first.
    """

    uri: str
    width: int
    height: int
    pixelated: bool
    marks: tuple[Mark, ...] = ()

    @property
    def wide(self) -> bool:
        """Whether it is a line, such as a line of text."""
        return self.width >= WIDE * self.height


@dataclass(frozen=True, slots=True)
class Maps:
    """Many small maps in one picture.

    Attributes:
        picture: The picture.
        low: Value at the dark end of its colours.
        high: Value at the bright end.
        shown: Rows and columns of maps.
    """

    picture: Picture
    low: float
    high: float
    shown: Grid


def picture(pixels: UInt8[np.ndarray, "H W 3"], *, longest: int = 224) -> Picture:
    """An image as WebP, at most `longest` pixels a side; small images keep every pixel (PNG).

    The limit of a line is `LONGEST_LINE`.
    """
    image = Image.fromarray(pixels)
    if max(image.size) <= SMALL:
        return _encode(image, pixelated=True)
    if image.width >= WIDE * image.height:
        longest = LONGEST_LINE
    image.thumbnail((longest, longest))
    return _encode(image, pixelated=False)


def mark(corners: Corners, size: Grid, kind: MarkKind, text: str) -> Mark:
    """A box in pixels of an image of this height and width; what sticks out is cut off."""
    height, width = size
    left, right = (min(max(x / width, 0.0), 1.0) for x in (corners[0], corners[2]))
    top, bottom = (min(max(y / height, 0.0), 1.0) for y in (corners[1], corners[3]))
    return Mark(kind, text, left, top, max(right - left, 0.0), max(bottom - top, 0.0))


def marked(image: Picture, marks: Sequence[Mark]) -> Picture:
    """The same picture with boxes over it."""
    return replace(image, marks=tuple(marks))


def overlay(
    pixels: UInt8[np.ndarray, "H W 3"], heat: Float[np.ndarray, "h w"], *, longest: int = 256
) -> Picture:
    """An image in grey under a map of the patches, smoothed, dark to bright from least to most."""
    height, width = pixels.shape[:2]
    enlarge = max(1, 192 // max(height, width))
    size = (width * enlarge, height * enlarge)
    span = max(float(heat.max() - heat.min()), 1e-12)
    scaled = Image.fromarray(np.uint8(255 * (heat - heat.min()) / span))
    smooth = np.asarray(scaled.resize(size, Image.Resampling.BICUBIC)) / 255
    base = Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.NEAREST)
    grey = np.asarray(base, dtype=np.float64)[..., None].repeat(3, axis=2)
    mixed = 0.45 * grey + 0.55 * 255 * _colours(smooth, "inferno")
    image = Image.fromarray(mixed.round().astype(np.uint8))
    image.thumbnail((longest, longest))
    return _encode(image, pixelated=False)


def reading_picture(maps: Float[np.ndarray, "S h w"], width: int) -> Picture:
    """One bar a symbol, first symbol on top: how much it looked at each column of the image.

    Args:
        maps: Attention of each symbol on the grid of places; every bar is scaled by itself.
        width: Pixels of the image, so that a bar lies below the columns that it speaks of.
    """
    columns = maps.sum(axis=1)
    scaled = columns / np.maximum(columns.max(axis=1, keepdims=True), 1e-12)
    bars = (255 * _colours(scaled, "inferno")).round().astype(np.uint8)
    tall = bars.repeat(8, axis=0)
    return _encode(
        Image.fromarray(tall).resize((width, len(tall)), Image.Resampling.NEAREST), pixelated=True
    )


def similarity_picture(similarity: Float[np.ndarray, "h w h w"]) -> Maps:
    """A grid of maps, one a patch, in the place of the patch; a large grid shows every n-th.

    Bright is the greatest similarity of two different patches, dark the least.
    """
    rows, columns = similarity.shape[:2]
    flat = similarity.reshape(rows * columns, rows * columns)
    others = flat[~np.eye(len(flat), dtype=bool)] if len(flat) > 1 else flat
    low, high = float(others.min()), float(others.max())
    scaled = np.clip((similarity - low) / max(high - low, 1e-12), 0, 1)
    shown = scaled[:: _step(rows, columns), :: _step(columns, rows)]
    tiles = _colours(shown.reshape(-1, rows, columns), "viridis")
    return Maps(tiled(tiles, shown.shape[1]), low, high, (shown.shape[0], shown.shape[1]))


def bias_picture(biases: Float[np.ndarray, "h r c"]) -> Maps:
    """One map a head, all on one scale of colours."""
    low, high = float(biases.min()), float(biases.max())
    columns = min(len(biases), 4)
    tiles = _colours((biases - low) / max(high - low, 1e-12), "viridis")
    return Maps(tiled(tiles, columns), low, high, (-(-len(biases) // columns), columns))


def _step(side: int, other: int) -> int:
    """At most 16 maps a side; fewer along a line, where maps and their grid are both long."""
    most = 16 if side <= 2 * other else max(2, 16 * other // side)
    return -(-side // most)


def tiled(tiles: Float[np.ndarray, "K H W 3"], columns: int) -> Picture:
    """Rows of tiles (RGB from 0 to 1) with one transparent pixel between them; square pixels."""
    count, height, width = tiles.shape[:3]
    rows = -(-count // columns)
    canvas = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), dtype=np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        canvas[top : top + height, left : left + width, :3] = (255 * tile).round()
        canvas[top : top + height, left : left + width, 3] = 255
    return _encode(Image.fromarray(canvas), pixelated=True)


def _colours(values: NDArray[Any], name: str) -> NDArray[np.float64]:
    """Values from 0 to 1 as RGB from 0 to 1, in a map of even brightness steps."""
    from matplotlib import colormaps

    return np.asarray(colormaps[name](values), dtype=np.float64)[..., :3]


def _encode(image: Image.Image, *, pixelated: bool) -> Picture:
    buffer = io.BytesIO()
    kind = "png" if pixelated else "webp"
    if pixelated:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="WEBP", quality=82, method=4)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/{kind};base64,{data}", *image.size, pixelated)
