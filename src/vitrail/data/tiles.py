"""Images that a model sees in parts: tiles at their own scale, or windows along the long side."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from vitrail.config import Config

ALIGNED = 8
"""Pixels of which the first row and column of a tile are a multiple."""
LONGEST = 64
"""Times its short side that the longest image may have in windows; beyond, it is squeezed."""


class Tiles(Config):
    """Keep the scale of the image, and show it to the model in overlapping tiles.

    An image that is smaller than a tile is seen whole, filled up with black on the right and
    below, and masked in the model. Training sees random tiles.

    Attributes:
        size: Height and width of a tile.
        overlap: Share of a tile that its neighbour shows too, about.
        scale: The image is enlarged by it first; below 1 it is made smaller.
    """

    kind: Literal["tiles"] = "tiles"
    size: tuple[PositiveInt, PositiveInt]
    overlap: float = Field(default=0.25, ge=0, lt=1)
    scale: float = Field(default=1.0, gt=0)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size of the image before it is filled up."""
        return max(1, round(height * self.scale)), max(1, round(width * self.scale))

    def filled(self, height: int, width: int) -> tuple[int, int]:
        """Size of the result: that of the image, or of a tile where the image is smaller."""
        rows, columns = self.resized(height, width)
        return max(rows, self.size[0]), max(columns, self.size[1])

    def starts(self, height: int, width: int) -> tuple[list[int], list[int]]:
        """First rows and first columns of the tiles that cover a prepared image evenly."""
        rows, columns = (
            tile_starts(length, side, self.overlap)
            for length, side in zip((height, width), self.size, strict=True)
        )
        return rows, columns


class Windows(Config):
    """Bring the short side to a length, and show the model square windows of the image.

    What windows say counts alike wherever they overlap: so EoMT and Segmenter are evaluated for
    classes (Kerssies et al. 2025; Strudel et al. 2021). Training sees random windows.

    Attributes:
        side: Of a window.
        short: Length of the short side of the image; None for the side of a window.
        stride: From one window to the next, the last one ending with the image; None for as few
            windows as cover it, evenly.
    """

    kind: Literal["windows"] = "windows"
    side: PositiveInt
    short: PositiveInt | None = None
    stride: PositiveInt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Windows:
        if self.short is not None and self.short < self.side:
            raise ValueError(f"short {self.short} is less than the side of a window, {self.side}")
        if self.stride is not None and self.stride > self.side:
            raise ValueError(f"stride {self.stride} leaves gaps between windows of {self.side}")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a window."""
        return self.side, self.side

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size of the whole image before it is cut."""
        # Truncated, as transformers' `get_size_with_aspect_ratio` does.
        short = self.short or self.side
        long = int(short * max(height, width) / min(height, width))
        long = min(long, LONGEST * short)
        return (short, long) if height <= width else (long, short)

    def starts(self, height: int, width: int) -> tuple[list[int], list[int]]:
        """First rows and first columns of the windows that cover a prepared image."""
        return self._along(height), self._along(width)

    def _along(self, length: int) -> list[int]:
        last = length - self.side
        if last <= 0:
            return [0]
        if self.stride is not None:
            return [*range(0, last, self.stride), last]
        count = math.ceil(length / self.side)
        overlap = (count * self.side - length) / (count - 1)
        # Rounded as EomtImageProcessor does, but for the last one, which ends with the image.
        return [*(int(i * (self.side - overlap)) for i in range(count - 1)), last]


def tile_starts(length: int, side: int, overlap: float) -> list[int]:
    """Where tiles begin that cover a length evenly; one, if a tile is as long.

    All but the last begin at multiples of `ALIGNED`, as the cells of a whole image would.

    Args:
        length: To be covered.
        side: Length of a tile.
        overlap: Share of a tile that its neighbour has too, 0 to below 1, give or take `ALIGNED`.
    """
    if length <= side:
        return [0]
    last = length - side
    count = math.ceil(last / (side * (1 - overlap))) + 1
    unit = ALIGNED if side * overlap >= ALIGNED else 1
    return [*(i * last // (count - 1) // unit * unit for i in range(count - 1)), last]
