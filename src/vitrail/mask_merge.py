"""Objects that several tiles show, in part or whole, made one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from vitrail.data.framing import Rectangle
from vitrail.data.segment_views import nearest
from vitrail.masks import corners, decode, encode
from vitrail.tasks.segment import SegmentConfig
from vitrail.types import Grid, Region, Segmentation

SAME = 0.5
"""IoU, within what two tiles both show, from which on two masks of one class are one object."""
TOUCH = 0.01
"""Distance to a border, in sides of the tile, up to which a mask is cut by it."""


class Tile(NamedTuple):
    """What was found in a tile.

    Attributes:
        top: Its first row in the image.
        left: Its first column.
        answer: In pixels of the tile.
    """

    top: int
    left: int
    answer: Segmentation


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A mask of one tile.

    Attributes:
        region: As the tile has it.
        tile: Number of the tile.
        frame: All that the tile shows.
        box: Around the mask.
        mask: Within the box.
        cut: Whether a border of the tile cuts it, beyond which the image goes on.
    """

    region: Region
    tile: int
    frame: Rectangle
    box: Rectangle
    mask: Bool[np.ndarray, "h w"]
    cut: bool


def merge_objects(
    tiles: Sequence[Tile], extent: Grid, size: Grid, config: SegmentConfig
) -> Segmentation:
    """One answer from those of all tiles.

    Objects of one tile are never merged: the model told them apart. Two masks of one class and of
    two tiles are one object if they agree within what both tiles show. A mask that ends at the
    border of its tile gives way to one that is whole, if that is at least half as sure. Of whole
    masks the surest stands for the others; masks that are all cut are united, with the score of
    the surest.

    Args:
        tiles: With their answers.
        extent: Height and width of the image that the tiles were cut from.
        size: Those of the original, in whose pixels the answer is.
        config: Whether objects may overlap, how many there may be.
    """
    parts = [part for i, tile in enumerate(tiles) for part in _parts(i, tile, extent)]
    parts.sort(key=lambda part: -part.region.score)
    if config.answer == "instance":
        groups = _objects(parts)[: config.max_regions]
        return Segmentation(size, tuple(_region(group, extent, size) for group in groups))
    things = dict(zip(config.classes, config.things or (True,) * len(config.classes), strict=True))
    groups = _objects([part for part in parts if things[part.region.label]])
    for label in (name for name in config.classes if not things[name]):
        if own := [part for part in parts if part.region.label == label]:
            groups.append(own)
    return _apart(groups, extent, size)


def _parts(number: int, tile: Tile, extent: Grid) -> list[_Part]:
    height, width = tile.answer.size
    frame = Rectangle(tile.top, tile.left, height, width)
    inner = (
        tile.top > 0,
        tile.top + height < extent[0],
        tile.left > 0,
        tile.left + width < extent[1],
    )
    near = TOUCH * max(height, width)
    found: list[_Part] = []
    for region in tile.answer.regions:
        left, top, right, bottom = map(int, corners(region.rle, tile.answer.size))
        if top == bottom:
            continue
        gaps = (top, height - bottom, left, width - right)
        cut = any(gap <= near and goes_on for gap, goes_on in zip(gaps, inner, strict=True))
        box = Rectangle(tile.top + top, tile.left + left, bottom - top, right - left)
        mask = decode(region.rle, tile.answer.size)[top:bottom, left:right].copy()
        found.append(_Part(region, number, frame, box, mask, cut))
    return found


def _objects(parts: Sequence[_Part]) -> list[list[_Part]]:
    """The parts of each object, the surest object first; `parts` have the surest first too."""
    links = _links(parts)
    alive = [
        not (
            part.cut
            and any(
                not parts[j].cut and parts[j].region.score >= part.region.score / 2
                for j in links[i]
            )
        )
        for i, part in enumerate(parts)
    ]
    objects: list[list[_Part]] = []
    for i, part in enumerate(parts):
        if not alive[i]:
            continue
        alive[i] = False
        group, tiles, waiting = [part], {part.tile}, [i]
        while waiting:
            for j in links[waiting.pop(0)]:
                if alive[j]:
                    alive[j] = False
                    if part.cut and parts[j].tile not in tiles:
                        group.append(parts[j])
                        tiles.add(parts[j].tile)
                        waiting.append(j)
        objects.append(group)
    return objects


def _links(parts: Sequence[_Part]) -> list[list[int]]:
    """For each part those of other tiles that are the same object, the surest first."""
    links: list[list[int]] = [[] for _ in parts]
    if not parts:
        return links
    names = np.array([part.region.label for part in parts])
    tiles = np.array([part.tile for part in parts])
    top, left, rows, columns = np.array([part.box for part in parts]).T
    bottom, right = top + rows, left + columns
    for i, part in enumerate(parts):
        near = (names == names[i]) & (tiles != tiles[i])
        near &= (top < bottom[i]) & (top[i] < bottom) & (left < right[i]) & (left[i] < right)
        links[i] = [int(j) for j in near.nonzero()[0] if _same(part, parts[int(j)])]
    return links


def _same(a: _Part, b: _Part) -> bool:
    both = _overlap(a.frame, b.frame)
    common = _overlap(a.box, b.box)
    shared = int((_within(a, common) & _within(b, common)).sum())
    union = int(_within(a, both).sum()) + int(_within(b, both).sum()) - shared
    return shared >= SAME * union > 0


def _overlap(a: Rectangle, b: Rectangle) -> Rectangle:
    top, left = max(a.top, b.top), max(a.left, b.left)
    bottom = max(top, min(a.top + a.rows, b.top + b.rows))
    right = max(left, min(a.left + a.columns, b.left + b.columns))
    return Rectangle(top, left, bottom - top, right - left)


def _within(part: _Part, frame: Rectangle) -> NDArray[np.bool_]:
    """The pixels of a mask in a rectangle."""
    top, left, rows, columns = _overlap(part.box, frame)
    top, left = top - part.box.top, left - part.box.left
    return part.mask[top : top + rows, left : left + columns]


def _drawn(group: Sequence[_Part], extent: Grid, size: Grid) -> Bool[np.ndarray, "H W"]:
    """All pixels of an object, in the original image."""
    whole = np.zeros(extent, dtype=np.bool_)
    for part in group:
        whole[part.box.slices] |= part.mask
    return nearest(whole[None], size)[0]


def _region(group: Sequence[_Part], extent: Grid, size: Grid) -> Region:
    region = group[0].region
    return Region(region.label, region.score, encode(_drawn(group, extent, size)))


def _apart(groups: Sequence[Sequence[_Part]], extent: Grid, size: Grid) -> Segmentation:
    """Regions without overlap: the surer takes what two claim."""
    free = np.ones(size, dtype=np.bool_)
    regions: list[Region] = []
    for group in sorted(groups, key=lambda group: -group[0].region.score):
        mask = _drawn(group, extent, size) & free
        if mask.any():
            free &= ~mask
            first = group[0].region
            regions.append(Region(first.label, first.score, encode(mask)))
    return Segmentation(size, tuple(regions))
