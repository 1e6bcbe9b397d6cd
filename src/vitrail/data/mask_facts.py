"""What a check keeps of one mask: counts and places, never its pixels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Int16

from vitrail.types import VOID, Segments

SPECK = 5
"""Pixels below which nobody can say what a patch shows."""

MANY_PARTS = 8
"""Parts that one object hardly falls into by what lies in front of it."""

SAME = 0.95
"""Overlap over union from which two objects are one, drawn twice."""

COVERED = 0.5
"""Share of the smaller of two objects from which one lies over the other."""


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """One mask.

    Attributes:
        digest: Hash of pixels and labels.
        judged: Pixels that are not void.
        pixels: Of each class that it shows, by index; objects above one another count each.
        objects: How many of each class, without crowds, by index; empty where classes are no
            objects.
        plain: Whether all its pixels are alike.
        specks: Class and pixels of patches that are too small, where classes are no objects.
        tiny: Class and pixels of objects that are too small.
        broken: Class and number of parts of objects in many parts.
        repeated: Classes of pairs of objects at the same place.
        covered: Pairs of objects of which one lies over the other.
    """

    digest: bytes
    judged: int
    pixels: Counter[int]
    objects: Counter[int]
    plain: bool
    specks: tuple[tuple[int, int], ...] = ()
    tiny: tuple[tuple[int, int], ...] = ()
    broken: tuple[tuple[int, int], ...] = ()
    repeated: tuple[tuple[int, int], ...] = ()
    covered: int = 0


def mask_facts(target: Segments, things: Sequence[bool]) -> MaskFacts:
    """Look at one mask.

    Args:
        target: The mask.
        things: Whether the segments of each class are objects.
    """
    ids = target.ids.numpy()
    crowds = target.crowds or (False,) * len(target.labels)
    areas = np.bincount(ids.ravel(), minlength=len(target.labels) + 1).tolist()
    pixels: Counter[int] = Counter()
    objects: Counter[int] = Counter()
    specks: list[tuple[int, int]] = []
    tiny: list[tuple[int, int]] = []
    broken: list[tuple[int, int]] = []
    for number, parts in _parts(ids):
        label = target.labels[number - 1]
        if label == VOID:
            continue
        pixels[label] += areas[number]
        if crowds[number - 1]:
            continue
        if not things[label]:
            specks += [(label, size) for size in parts if size < SPECK]
            continue
        objects[label] += 1
        tiny += [(label, areas[number])] * (areas[number] < SPECK)
        broken += [(label, len(parts))] * (len(parts) > MANY_PARTS)
    repeated, covered = _overlaps(target, areas)
    void = [number for number, label in enumerate(target.labels, 1) if label == VOID]
    return MaskFacts(
        digest=hashlib.sha256(ids.tobytes() + str(target.labels).encode()).digest(),
        judged=ids[0].size - int(np.isin(ids, void).any(axis=0).sum()),
        pixels=pixels,
        objects=objects,
        plain=bool((ids == ids[:, :1, :1]).all()),
        specks=tuple(specks),
        tiny=tuple(tiny),
        broken=tuple(broken),
        repeated=repeated,
        covered=covered,
    )


def _parts(ids: Int16[np.ndarray, "L H W"]) -> Iterator[tuple[int, list[int]]]:
    """Each segment with the pixels of its parts; corners that touch connect."""
    from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]

    images = cast("Any", ndimage)
    for layer in ids:
        for number, window in enumerate(images.find_objects(layer), 1):
            if window is not None:
                own: Bool[np.ndarray, "h w"] = layer[window] == number
                parts, _ = images.label(own, np.ones((3, 3)))
                yield number, np.bincount(parts.ravel())[1:].tolist()


def _overlaps(target: Segments, areas: Sequence[int]) -> tuple[tuple[tuple[int, int], ...], int]:
    """Classes of pairs that are one object, and how many others lie over one another."""
    repeated: list[tuple[int, int]] = []
    covered = 0
    for one, other in combinations(target.ids.numpy(), 2):
        both = (one > 0) & (other > 0)
        pairs, counts = np.unique(
            one[both].astype(np.int32) << 16 | other[both], return_counts=True
        )
        rows = cast(
            "list[tuple[int, int]]", list(zip(pairs.tolist(), counts.tolist(), strict=True))
        )
        for pair, shared in rows:
            first, second = pair >> 16, pair & 0xFFFF
            labels = target.labels[first - 1], target.labels[second - 1]
            if VOID in labels:
                continue
            if shared >= SAME * (areas[first] + areas[second] - shared):
                repeated.append(labels)
            elif shared >= COVERED * min(areas[first], areas[second]):
                covered += 1
    return tuple(repeated), covered
