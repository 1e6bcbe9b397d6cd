"""The segments of an image as run lengths, which is what objects are compared by."""

from __future__ import annotations

from dataclasses import dataclass

from vitrail.masks import area, encode, encode_each, union
from vitrail.types import VOID, Segments


@dataclass(frozen=True, slots=True)
class Truth:
    """All segments that are judged, and what is not.

    Attributes:
        rles: Pixels of each.
        labels: Class of each.
        crowds: Whether each is a crowd.
        void: Pixels that nobody judges; None where there are none.
    """

    rles: tuple[bytes, ...]
    labels: tuple[int, ...]
    crowds: tuple[bool, ...]
    void: bytes | None


def truth_of(target: Segments, *, background: bool) -> Truth:
    """Take the segments of an image apart.

    Args:
        target: The segments.
        background: Whether a pixel in no segment is background; else it is void.
    """
    ids = target.ids.numpy()
    each: dict[int, bytes] = {}
    for layer in ids:
        each |= encode_each(layer)
    crowds = target.crowds or (False,) * len(target.labels)
    known = [k for k in sorted(each) if target.labels[k - 1] != VOID]
    unknown = [rle for k, rle in each.items() if target.labels[k - 1] == VOID]
    if not background:
        unknown.append(encode((ids == 0).all(axis=0)))
    void = union(unknown, target.size)
    return Truth(
        rles=tuple(each[k] for k in known),
        labels=tuple(target.labels[k - 1] for k in known),
        crowds=tuple(crowds[k - 1] for k in known),
        void=void if area(void, target.size) else None,
    )
