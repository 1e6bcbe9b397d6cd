"""Copy-paste for boxes: objects of another view, cut out with a little of what is around them.

After Ghiasi et al. 2021, who cut along masks; where there are only boxes, a soft edge hides the cut
(Dwibedi et al. 2017).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray

from vitrail.data.framing import Rectangle, Window, boxes_of, clipped, moved
from vitrail.types import Box, Boxes, View

MOST = 4
"""Patches that are pasted at most."""
MARGIN = 4
"""Pixels around the box that are pasted with it, over which the patch fades in."""
MOST_COVERED = 0.3
"""Share of any box of the view that a patch may cover."""

_TRIES = 10


def copy_paste(view: View, other: View, min_visible: float, rng: np.random.Generator) -> View:
    """Paste a few objects of another view where they cover little of what is there.

    Whatever else a patch shows comes with its label, as in a crop.

    Args:
        view: Where to paste; it is not changed.
        other: Where objects are taken from.
        min_visible: As in `moved`.
        rng: The only source of randomness.
    """
    boxes, others = boxes_of(view), boxes_of(other)
    single = [box for box in others.items if not box.crowd]
    if not single:
        return view
    count = min(len(single), int(rng.integers(1, MOST + 1)))
    pixels = view.image.permute(1, 2, 0).numpy().copy()
    source = other.image.permute(1, 2, 0).numpy()
    items = list(boxes.items)
    chosen: list[int] = rng.permutation(len(single))[:count].tolist()
    for index in chosen:
        patch = _patch(single[index], source.shape[:2])
        place = _place(patch, pixels.shape[:2], items, rng)
        if place is None:
            continue
        _blend(pixels[place.slices], source[patch.slices])
        items += moved(others, Window(patch, place), min_visible)
    image = torch.from_numpy(pixels).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]
    return View(image, Boxes(tuple(items), boxes.size))


def _patch(box: Box, size: tuple[int, ...]) -> Rectangle:
    """The pixels of a box and a margin around it, as far as the view goes."""
    x1, y1, x2, y2 = box.corners
    top, left = max(0, int(y1) - MARGIN), max(0, int(x1) - MARGIN)
    bottom, right = min(size[0], int(y2) + 1 + MARGIN), min(size[1], int(x2) + 1 + MARGIN)
    return Rectangle(top, left, bottom - top, right - left)


def _place(
    patch: Rectangle, size: tuple[int, ...], items: list[Box], rng: np.random.Generator
) -> Rectangle | None:
    """A random place for a patch; None if it finds none that covers little, or has no room."""
    draws = rng.random((_TRIES, 2)).tolist()
    if patch.rows > size[0] or patch.columns > size[1]:
        return None
    for down, across in draws:
        top = int(down * (size[0] - patch.rows + 1))
        left = int(across * (size[1] - patch.columns + 1))
        place = Rectangle(top, left, patch.rows, patch.columns)
        if all(_area(clipped(b.corners, place)) <= MOST_COVERED * _area(b.corners) for b in items):
            return place
    return None


def _area(corners: tuple[float, float, float, float]) -> float:
    x1, y1, x2, y2 = corners
    return (x2 - x1) * (y2 - y1)


def _blend(below: NDArray[np.uint8], patch: NDArray[np.uint8]) -> None:
    """Lay a patch over pixels, in place; it fades in from its edges."""
    rows, columns = (_ramp(side) for side in patch.shape[:2])
    opacity = rows[:, None, None] * columns[None, :, None]
    below[:] = (below + opacity * (patch.astype(np.float32) - below) + 0.5).astype(np.uint8)


def _ramp(side: int) -> Float32[np.ndarray, "n"]:
    """From almost nothing at both ends to 1 after the margin."""
    place = np.arange(side, dtype=np.float32) + 0.5
    return (np.minimum(place, side - place) / MARGIN).clip(0, 1)
