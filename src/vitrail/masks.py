"""Masks as COCO's compressed run lengths: how a region travels, a few bytes instead of an image.

COCO counts runs down the columns. What follows from the runs alone (area, box, overlap, union) is
computed without the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, cast

import numpy as np
from jaxtyping import Bool, Float, Shaped
from pycocotools import mask as coco

from vitrail.types import Corners, Grid


class Rle(TypedDict):
    """A mask as COCO's own tools and files take it."""

    size: list[int]
    counts: str | bytes


def as_coco(rle: bytes, size: Grid) -> Rle:
    """A mask with its height and width beside it, as pycocotools takes it."""
    return {"size": list(size), "counts": rle}


def encode(mask: Shaped[np.ndarray, "H W"]) -> bytes:
    """Run lengths of a mask.

    Args:
        mask: What is not 0 belongs to it; any type of number, or bool.
    """
    # `!= 0` first: bools of 1-bit PNGs may be stored as 255, and casts to uint8 may wrap.
    return cast("bytes", coco.encode(np.asfortranarray((mask != 0).view(np.uint8)))["counts"])


def encode_each(ids: Shaped[np.ndarray, "H W"]) -> dict[int, bytes]:
    """Run lengths of every segment of a map, in one pass.

    Args:
        ids: Number of the segment at each pixel, 0 where there is none.

    Returns:
        By number, in rising order.
    """
    flat = ids.ravel(order="F")
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    starts = np.append(0, ends[:-1])
    numbers = flat[starts]
    order = np.argsort(numbers, kind="stable")
    each, first = np.unique(numbers[order], return_index=True)
    result: dict[int, bytes] = {}
    for number, runs in zip(each.tolist(), np.split(order, first[1:]), strict=True):
        if number:
            edges = np.stack([starts[runs], ends[runs]], axis=1).ravel()
            if edges[-1] != flat.size:
                edges = np.append(edges, flat.size)
            counts = np.diff(edges, prepend=0).tolist()
            # Its types know compressed counts alone.
            given: Any = {"size": list(ids.shape), "counts": counts}
            result[number] = cast("Any", coco.frPyObjects)(given, *ids.shape)["counts"]
    return result


def decode(rle: bytes, size: Grid) -> Bool[np.ndarray, "H W"]:
    """The pixels of a mask.

    Args:
        rle: Its run lengths.
        size: Height and width of its image.
    """
    return np.ascontiguousarray(coco.decode(as_coco(rle, size))).view(np.bool_)


def area(rle: bytes, size: Grid) -> int:
    """Pixels of a mask."""
    return int(coco.area(as_coco(rle, size)))


def union(rles: Sequence[bytes], size: Grid) -> bytes:
    """The pixels that are in any of the masks of an image."""
    if not rles:
        return encode(np.zeros(size, dtype=np.bool_))
    return cast("bytes", coco.merge([as_coco(rle, size) for rle in rles])["counts"])


def corners(rle: bytes, size: Grid) -> Corners:
    """The box around a mask; all 0 where it is empty."""
    x, y, width, height = coco.toBbox(as_coco(rle, size)).tolist()
    return x, y, x + width, y + height


def overlaps(
    ours: Sequence[bytes], theirs: Sequence[bytes], size: Grid, crowds: Sequence[bool] = ()
) -> Float[np.ndarray, "M N"]:
    """IoU of each of our masks with each of theirs.

    Args:
        ours: Masks of an image.
        theirs: Masks of the same image.
        size: Its height and width.
        crowds: Whether each of theirs is a crowd, with which the share of our mask that lies in it
            is taken instead; empty where none is.
    """
    if not ours or not theirs:
        return np.zeros((len(ours), len(theirs)))
    first, second = ([as_coco(rle, size) for rle in each] for each in (ours, theirs))
    return np.asarray(coco.iou(first, second, [int(c) for c in crowds or [False] * len(second)]))
