"""Attention of one layer in few bytes: laid in windows of blocks, in whole numbers, deflated.

A page speaks one language for all families. The places of a layer are cut into windows (all places
are one window but in Swin), and a window into square blocks of places (one place each, unless the
layer has too many). A row is a token that is no place, or a block of a window; its columns are the
keys that are no places, then the blocks of the same window. `templates/explain_geometry.js` reads
the same language.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitrail.explain.layout import (
    Layout,
    OfTokens,
    Pooled,
    Reading,
    Searchers,
    Searching,
    Symbols,
    Whole,
    Windowed,
)
from vitrail.types import Grid

Bits = Literal[8, 16]
"""Bits a weight."""

RowKind = Literal["places", "pool", "symbols"]
"""What the queries are: tokens and places, the one query of a pooling, symbols of a text."""

KeyKind = Literal["places", "symbols"]
"""What is looked at."""

LEVEL = 6
"""Of deflate: higher ones take three times as long for one per cent."""


@dataclass(frozen=True, slots=True)
class Laid:
    """Where rows and columns of a layer lie.

    Attributes:
        rows: What the queries are.
        keys: What is looked at.
        tokens: Names of the first rows: those that are no places.
        others: Names of the first columns: those that are no places.
        grid: Rows and columns of places; (0, 0) where there are none.
        stride: Pixels from one place to the next.
        window: Rows and columns of places of a window.
        shift: Places by which the windows are moved down and right.
        block: Side of a block in places.
    """

    rows: RowKind
    keys: KeyKind
    tokens: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    grid: Grid = (0, 0)
    stride: int = 1
    window: Grid = (0, 0)
    shift: int = 0
    block: int = 1

    @property
    def blocks(self) -> Grid:
        """Rows and columns of blocks of a window."""
        return ceil(self.window[0] / self.block), ceil(self.window[1] / self.block)

    @property
    def windows(self) -> Grid:
        """Rows and columns of windows."""
        return ceil(self.grid[0] / self.window[0]), ceil(self.grid[1] / self.window[1])

    def shape(self, symbols: int = 0) -> Grid:
        """Number of rows and of columns; a text has so many symbols."""
        if self.keys == "symbols":
            return symbols, symbols
        columns = len(self.others) + prod(self.blocks)
        match self.rows:
            case "places":
                return len(self.tokens) + prod(self.windows) * prod(self.blocks), columns
            case "pool":
                return 1, columns
            case "symbols":
                return symbols, columns


@dataclass(frozen=True, slots=True)
class Packed:
    """Attention of one layer for one image.

    Attributes:
        laid: Where it lies.
        shape: Heads, rows, columns.
        bits: Bits a weight.
        data: Deflated: the greatest number of each row (float32, little-endian), then each weight
            as a whole number, in parts of that greatest; 16 bits as all high bytes, then all low.
        error: How far `weights @ v` is from what the fused kernel gave, relative.
    """

    laid: Laid
    shape: tuple[int, int, int]
    bits: Bits
    data: bytes
    error: float


def lay_out(layout: Layout, block: int = 1) -> Laid:
    """What a layout is in the language of windows and blocks."""
    match layout:
        case Symbols() | Searchers():
            return Laid("symbols", "symbols")
        case Searching(grid=grid, stride=stride):
            return Laid("symbols", "places", (), (), grid, stride, grid, 0, block)
        case Windowed(grid=grid, stride=stride, windows=windows):
            padding = () if windows.padded == grid else ("padding",)
            window = (windows.size, windows.size)
            return Laid("places", "places", (), padding, grid, stride, window, windows.shift, block)
        case OfTokens(grid=grid, stride=stride, prefix=prefix):
            tokens = prefix if isinstance(layout, Whole) else ()
            return Laid(_rows(layout), "places", tokens, prefix, grid, stride, grid, 0, block)
        case _:
            raise AssertionError(f"a layout unknown here: {type(layout).__name__}")


def pack(
    weights: Float[Tensor, "h Q N"], layout: Layout, *, block: int, bits: Bits, error: float
) -> Packed:
    """Lay out, make coarser, round, deflate; one head at a time."""
    laid = lay_out(layout, block)
    coarse = [coarsen(head, layout, laid).numpy(force=True) for head in weights]
    scales, numbers = zip(*(_rounded(head, bits) for head in coarse), strict=True)
    shape = (len(coarse), *coarse[0].shape)
    body = np.stack(numbers)
    planes = [body] if bits == 8 else [body >> 8, body & 255]
    raw = np.stack(scales).astype("<f4").tobytes()
    raw += b"".join(plane.astype(np.uint8).tobytes() for plane in planes)
    return Packed(laid, shape, bits, zlib.compress(raw, LEVEL), error)


def unpack(packed: Packed) -> Float[np.ndarray, "h Q N"]:
    """The weights again, each within `tolerance` of what it was."""
    raw, count = zlib.decompress(packed.data), prod(packed.shape)
    rows = packed.shape[0] * packed.shape[1]
    scales = np.frombuffer(raw, "<f4", rows).reshape(*packed.shape[:2], 1)
    planes = np.frombuffer(raw, np.uint8, offset=4 * rows).reshape(-1, count).astype(np.float64)
    numbers = planes[0] if packed.bits == 8 else 256 * planes[0] + planes[1]
    return scales * numbers.reshape(packed.shape) / (2**packed.bits - 1)


def tolerance(bits: Bits) -> float:
    """How far a number may be off, in parts of the greatest of its row."""
    return 0.5 / (2**bits - 1)


def coarsen(weights: Float[Tensor, "Q N"], layout: Layout, laid: Laid) -> Float[Tensor, "R K"]:
    """Weights of one head in the language of the page: keys summed, queries averaged over blocks.

    What goes to padding is one column. Rows sum to what they did; a block that is all padding has
    no queries, and a row of zeros.
    """
    match layout:
        case Symbols():
            return weights
        case Windowed(windows=windows):
            inside = (layout.places() >= 0).to(weights)  # one a row
            size = windows.size**2
            cut = weights.view(windows.count, size, size)
            keys = inside.view(windows.count, 1, size)
            lost = [(cut * (1 - keys)).sum(dim=2, keepdim=True)] if laid.others else []
            summed = torch.cat([*lost, _sum(cut * keys, laid)], dim=2)
            return _mean(summed, inside.view(windows.count, size, 1), laid).flatten(0, 1)
        case OfTokens(prefix=prefix):
            p = len(prefix)
            summed = torch.cat([weights[:, :p], _sum(weights[:, p:], laid)], dim=1)
            if laid.rows != "places":
                return summed
            places = summed[p:]
            return torch.cat([summed[:p], _mean(places, torch.ones_like(places[:, :1]), laid)])
        case _:
            raise AssertionError(f"a layout unknown here: {type(layout).__name__}")


def _rows(layout: OfTokens) -> RowKind:
    match layout:
        case Pooled():
            return "pool"
        case Reading():
            return "symbols"
        case _:
            return "places"


def _sum(keys: Float[Tensor, "*B n"], laid: Laid) -> Float[Tensor, "*B k"]:
    """Sums over the blocks of a window."""
    if laid.block == 1:
        return keys
    (rows, columns), (down, across), b = laid.window, laid.blocks, laid.block
    places = keys.reshape(*keys.shape[:-1], rows, columns)
    places = F.pad(places, (0, across * b - columns, 0, down * b - rows))
    blocks = places.reshape(*places.shape[:-2], down, b, across, b)
    return blocks.sum(dim=(-3, -1)).flatten(-2)


def _mean(
    rows: Float[Tensor, "*B n K"], inside: Float[Tensor, "*B n 1"], laid: Laid
) -> Float[Tensor, "*B k K"]:
    """Means over the blocks of a window, of the places that lie on the image."""
    total = _sum((rows * inside).mT, laid).mT
    return total / _sum(inside.mT, laid).mT.clamp_min(1)


def _rounded(
    weights: NDArray[np.float32], bits: Bits
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    scale = weights.max(axis=1).astype(np.float32)
    parts = weights / np.where(scale > 0, scale, 1)[:, None].astype(np.float64)
    return scale, np.rint(parts.clip(0, 1) * (2**bits - 1)).astype(np.uint16)
