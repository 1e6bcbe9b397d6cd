"""Outlines of masks, along the edges of pixels, so that what they enclose is the mask again.

A corner is where the edge of a mask turns. In a row of corners the first and second are the ends
of one edge, the third and fourth of the next, and so on; likewise in a column. So rings are
followed from corner to corner, which are few, and no pixel is visited.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

Ring = Int[np.ndarray, "_ 2"]
"""Corners x, y of a closed outline in turn, the last joined to the first."""


def outlines(mask: Bool[np.ndarray, "H W"]) -> list[Ring]:
    """One ring a part of a mask; pixels that touch at a corner only are two parts.

    A polygon has no word for a hole. Each is joined to the ring around it by a cut of no width,
    there and back: filled by the even-odd rule, the hole stays empty, and the enclosed area is the
    number of pixels.

    Returns:
        Rings in pixels, clockwise (holes against it), of the highest part first.
    """
    top, left, cut = _cropped(mask)
    rings, holes = _rings(cut)
    if holes:
        _fill_in(rings, holes, cut)
    return [ring + np.array([left, top]) for ring in rings]


def one_outline(mask: Bool[np.ndarray, "H W"]) -> Ring:
    """All parts of a mask as one ring, joined as holes are; no corner where it is empty."""
    whole, *others = outlines(mask) or [np.zeros((0, 2), dtype=np.int64)]
    for ring in others:
        whole = _joined(whole, ring)
    return whole


def _cropped(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, Bool[np.ndarray, "h w"]]:
    """First row and column of a mask, and what of the image it needs: most objects are small."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0, mask[:0, :0]
    top, left = int(rows[0]), int(columns[0])
    return top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1]


def _fill_in(rings: list[Ring], holes: list[Ring], mask: Bool[np.ndarray, "H W"]) -> None:
    """Join each hole to the ring of the part around it."""
    from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]

    found: NDArray[np.int32] = cast("Any", ndimage).label(np.pad(mask, 1))[0]
    # At the upper left corner of a ring: below it lies what it encloses, above a hole the part.
    part_of = {int(found[ring[0, 1] + 1, ring[0, 0] + 1]): i for i, ring in enumerate(rings)}
    for hole in holes:
        x, y = hole[0]
        part = part_of[int(found[y, x + 1])]
        rings[part] = _joined(rings[part], hole[::-1])


def _rings(mask: Bool[np.ndarray, "H W"]) -> tuple[list[Ring], list[Ring]]:
    """Rings around parts and around holes, each from its upper left corner on, clockwise."""
    points, up, left, inside = _corners(mask)
    across = _partners(np.lexsort((left, points[:, 0], points[:, 1])))
    down = _partners(np.lexsort((up, points[:, 1], points[:, 0])))
    seen = np.zeros(len(points), dtype=np.bool_)
    parts: list[Ring] = []
    holes: list[Ring] = []
    for start in range(len(points)):
        if seen[start]:
            continue
        ring: list[int] = []
        here = start
        while not seen[here]:
            there = int(across[here])
            seen[here] = seen[there] = True
            ring += [here, there]
            here = int(down[there])
        (parts if inside[start] else holes).append(points[ring])
    return parts, holes


def _corners(
    mask: Bool[np.ndarray, "H W"],
) -> tuple[Ring, Int[np.ndarray, "_"], Int[np.ndarray, "_"], Bool[np.ndarray, "_"]]:
    """All corners row by row; with each, what orders two that lie on one point.

    Where two pixels touch at a point, two corners lie on it, one of each pixel.

    Returns:
        Points x, y; 0 where the vertical edge leads up, else 1; 0 where the horizontal edge leads
        to the left, else 1; whether the pixel right of and below the point is of the mask.
    """
    padded = np.pad(mask, 1)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    single = a ^ b ^ c ^ d
    double = ~single & (a == d) & (b == c) & (a != b)
    y, x = np.nonzero(single | double)
    twice = 1 + double[y, x]
    begin: NDArray[np.int64] = np.repeat(np.cumsum(twice) - twice, twice)
    first = begin == np.arange(len(begin))
    y, x = np.repeat(y, twice), np.repeat(x, twice)
    a, b, c, d = (each[y, x] for each in (a, b, c, d))
    both = double[y, x]
    # One corner: the edges lie where neighbours differ. Two: first the left one, then the right.
    left = (both & ~first) | (~both & ~(a ^ c))
    up = (both & (first ^ a)) | (~both & ~(a ^ b))
    return np.stack([x, y], axis=1), up.astype(np.int64), left.astype(np.int64), d


def _partners(order: Int[np.ndarray, "_"]) -> Int[np.ndarray, "_"]:
    """The other end of each corner's edge, where both are neighbours in this order."""
    partner = np.empty_like(order)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    return partner


def _joined(ring: Ring, other: Ring) -> Ring:
    """Both as one, by a cut from the first corner of the other to the corner nearest to it."""
    near = int(np.abs(ring - other[0]).sum(axis=1).argmin())
    return np.concatenate([ring[: near + 1], other, other[:1], ring[near:]])
