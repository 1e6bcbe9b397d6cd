"""Images that are there more than once: byte by byte, or to the eye."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Group = tuple[int, ...]
"""Rising indices of samples that belong together."""

HASH_BITS = 64

NEAR = 4
"""Most differing bits at which two perceptual hashes count as the same picture.

The hash cuts at the median, so that half of its bits are set and distances are even. On 5,000
pictures (flowers, blood cells, eyes, streets, roads, nuclei) all 14 pairs of different files at 4
bits or fewer were the same scene, recoloured, brightened or shot again; at 6 bits the eyes of two
people met, at 8 bits two unrelated dandelions.
"""

MIN_SIDE = 64
"""Shorter side in pixels below which a perceptual hash is not taken.

The hash looks at a picture shrunk to 32 x 32. A digit or an icon would be enlarged for it, and
small pictures of one kind share their layout: their hashes agree without being copies.
"""

MIN_CONTRAST = 4.0
"""Standard deviation of the grey levels (0 to 255) below which a picture is flat: only noise is
left to hash."""

_THUMBNAIL = (32, 32)


def perceptual_hash(image: UInt8[Tensor, "3 H W"]) -> int | None:
    """The 64-bit perceptual hash of one image (pHash: signs of its low DCT frequencies).

    Args:
        image: RGB, 0 to 255.

    Returns:
        The hash; None for a picture that is too small (`MIN_SIDE`) or flat (`MIN_CONTRAST`).
    """
    import imagehash

    if min(image.shape[1:]) < MIN_SIDE:
        return None
    grey = Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")
    thumbnail = grey.resize(_THUMBNAIL, Image.Resampling.LANCZOS)
    if np.asarray(thumbnail).std() < MIN_CONTRAST:
        return None
    # The thumbnail is what `phash` would make itself; its own resize then does nothing.
    bits = np.asarray(cast("Any", imagehash.phash(thumbnail)).hash)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def exact_groups(keys: Sequence[Hashable]) -> list[Group]:
    """Samples with equal keys (digests of their bytes), where there are two or more.

    Args:
        keys: One key a sample; None for a sample that takes no part.
    """
    found: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key is not None:
            found[key].append(index)
    return [tuple(members) for members in found.values() if len(members) > 1]


def near_groups(hashes: Sequence[int | None], *, distance: int = NEAR) -> list[Group]:
    """Samples whose perceptual hashes are chained by steps of at most `distance` bits.

    Args:
        hashes: One 64-bit hash a sample; None for a sample that takes no part.
        distance: Most bits in which two neighbours of a chain differ.

    Returns:
        Groups of two or more samples.
    """
    from scipy.sparse import coo_array  # pyright: ignore[reportMissingTypeStubs]
    from scipy.sparse.csgraph import (  # pyright: ignore[reportMissingTypeStubs]
        connected_components,  # pyright: ignore[reportUnknownVariableType]
    )

    members = [index for index, value in enumerate(hashes) if value is not None]
    values = np.array([hashes[index] for index in members], dtype=np.uint64)
    # Equal hashes first: a thousand frames of a still scene must not cost a million pairs.
    unique, inverse = np.unique(values, return_inverse=True)
    left, right = near_pairs(unique, distance)
    links = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(unique), len(unique)))
    components = cast("Any", connected_components(links, directed=False))[1]
    groups = exact_groups([int(label) for label in components[inverse]])
    return [tuple(members[place] for place in group) for group in groups]


def near_pairs(
    hashes: NDArray[np.uint64], distance: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All pairs of hashes that differ in at most `distance` bits; a pair may come repeatedly.

    The bits are cut into `distance + 1` bands. Two hashes that differ in no more than `distance`
    bits agree in at least one whole band (pigeonhole principle), so that only hashes with an equal
    band are compared. Sorted by a band, equal ones are neighbours: those one place apart are
    compared, then those two places apart, until nothing is equal.
    """
    edges = [HASH_BITS * band // (distance + 1) for band in range(distance + 2)]
    lefts, rights = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for low, high in pairwise(edges):
        keys = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(keys)
        keys = keys[order]
        starts = np.arange(len(keys))
        for step in range(1, len(keys)):
            starts = starts[starts + step < len(keys)]
            starts = starts[keys[starts] == keys[starts + step]]
            if not len(starts):
                break
            left, right = order[starts], order[starts + step]
            close = np.bitwise_count(hashes[left] ^ hashes[right]) <= distance
            lefts.append(left[close])
            rights.append(right[close])
    return np.concatenate(lefts), np.concatenate(rights)
