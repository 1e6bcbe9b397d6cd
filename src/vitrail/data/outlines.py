"""From outlines and run lengths, as label files write objects, to their pixels.

Polygons are filled as COCO's own tools fill them. Run lengths are read here: pycocotools believes
what a file promises and reads on past the end of one that is too short.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from jaxtyping import Bool

from vitrail.data.segments import Drawing, Piece, hashed, stack
from vitrail.errors import BadSampleError
from vitrail.types import Grid, Segments

FARTHEST = 8
"""Sides of the image from its edge up to which a point is believed: filling costs as much."""

_THIN = 1.0
"""Pixels of area for a pixel of edge under which an outline may hold the centre of no pixel."""

Polygon = tuple[float, ...]
"""x and y of point after point, in pixels from the left and upper edge."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One object of a label file: polygons or run lengths.

    Attributes:
        label: Index of its class.
        where: Its place in the file, for people.
        polygons: Its parts; empty where `runs` are given.
        runs: Lengths of pixels outside and inside in turn, down the columns; a list of them, or
            COCO's compressed text.
        crowd: As in `Box`.
    """

    label: int
    where: str
    polygons: tuple[Polygon, ...] = ()
    runs: tuple[int, ...] | str = ()
    crowd: bool = False

    def mask(self, size: Grid) -> Bool[np.ndarray, "H W"]:
        """Its pixels."""
        if self.polygons:
            return fill(self.polygons, size)
        return from_runs(unpacked(self.runs) if isinstance(self.runs, str) else self.runs, size)


@dataclass(frozen=True)
class Objects(Drawing):
    """Objects that a label file describes; what came first is the first segment.

    Attributes:
        size: Height and width of the image.
        shapes: One an object.
    """

    costly = True
    size: Grid
    shapes: Sequence[Shape] = field(default=())

    def draw(self) -> Segments:
        """Fill every outline."""
        pieces = (Piece(s.mask(self.size), s.label, s.crowd) for s in self.shapes)
        return stack(pieces, self.size)

    def digest(self) -> str:
        """A hash of the outlines in any order, to a thousandth of a pixel."""
        return hashed(str(self.size), *sorted(map(_shown, self.shapes)))


def fill(polygons: Iterable[Polygon], size: Grid) -> Bool[np.ndarray, "H W"]:
    """The pixels inside any of some polygons, as COCO counts them."""
    from pycocotools import mask

    height, width = size
    parts = cast("Any", mask).frPyObjects([list(points) for points in polygons], height, width)
    union = cast("Any", mask).merge(parts)
    return np.ascontiguousarray(cast("Any", mask).decode(union)).astype(np.bool_)


def from_runs(runs: Sequence[int], size: Grid) -> Bool[np.ndarray, "H W"]:
    """The pixels that flawless run lengths mean, which start outside and go down the columns."""
    height, width = size
    inside = np.arange(len(runs)) % 2 == 1
    column = np.repeat(inside, np.asarray(runs, dtype=np.int64))
    return np.ascontiguousarray(column.reshape(width, height).T)


def unpacked(text: str) -> tuple[int, ...]:
    """Run lengths from COCO's compressed text (`rleFrString` of pycocotools).

    Five bits a character, a sixth where more follow; from the fourth run on, the difference to the
    run before last is written.

    Raises:
        BadSampleError: it is no such text.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise BadSampleError(f"'{letter}' in run lengths; export them again")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise BadSampleError("run lengths that are cut off; export them again")
    return tuple(runs)


def polygon_flaw(points: Sequence[float], size: Grid) -> str:
    """What is wrong with a polygon by itself or on its image; empty where nothing is."""
    if len(points) < 6 or len(points) % 2:
        return f"has {len(points)} numbers; an outline has three points or more, two numbers each"
    if not all(map(math.isfinite, points)):
        return "has a point that is no finite number"
    height, width = size
    far = FARTHEST * max(size)
    across, down = points[::2], points[1::2]
    if min(points) < -far or max(points) > far + max(size):
        return "has a point far outside the image"
    if min(across) >= width or max(across) <= 0 or min(down) >= height or max(down) <= 0:
        return f"lies outside the image of {width} x {height} pixels"
    return ""


def runs_flaw(runs: tuple[int, ...] | str, size: Grid) -> str:
    """What is wrong with run lengths on an image; empty where nothing is."""
    try:
        lengths = unpacked(runs) if isinstance(runs, str) else runs
    except BadSampleError as error:
        return f"has {error}"
    height, width = size
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        return (
            f"has run lengths of {sum(lengths):,} pixels for an image of {width} x {height}; "
            "export them again for this size"
        )
    return "" if sum(lengths[1::2]) else "has run lengths without a pixel inside"


def covers_nothing(polygons: Sequence[Polygon], size: Grid) -> bool:
    """Whether polygons are so thin, or so far outside, that they hold the centre of no pixel."""
    suspects = all(_is_thin(points) or _leaves(points, size) for points in polygons)
    return suspects and not fill(polygons, size).any()


def _leaves(points: Polygon, size: Grid) -> bool:
    x, y = points[::2], points[1::2]
    return min(x) < 0 or min(y) < 0 or max(x) > size[1] or max(y) > size[0]


def _is_thin(points: Polygon) -> bool:
    x, y = np.asarray(points[::2]), np.asarray(points[1::2])
    along, down = np.roll(x, -1), np.roll(y, -1)
    area = abs(float((x * down - along * y).sum())) / 2
    return area <= _THIN * float(np.hypot(along - x, down - y).sum())


def _shown(shape: Shape) -> str:
    parts = [" ".join(f"{value:.3f}" for value in points) for points in shape.polygons]
    return f"{shape.label}{'*' * shape.crowd}:{';'.join(parts)}:{shape.runs}"
