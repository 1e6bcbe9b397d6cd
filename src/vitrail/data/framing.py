"""A part of an image at a place of a view, the boxes with it; and the symmetries of a view."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.preprocess import Preprocess
from vitrail.types import Box, Boxes, Corners, Grid, View

LEAST = 1.0
"""Pixels that a box of a view is wide and high, at least."""


class Rectangle(NamedTuple):
    """Whole pixels."""

    top: int
    left: int
    rows: int
    columns: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return (
            slice(self.top, self.top + self.rows),
            slice(self.left, self.left + self.columns),
        )


class Window(NamedTuple):
    """A rectangle of an image that is stretched to a rectangle of a view."""

    source: Rectangle
    place: Rectangle


def show(
    image: UInt8[Tensor, "3 H W"],
    window: Window,
    size: Grid,
    preprocess: Preprocess,
    colour: NDArray[np.uint8],
) -> UInt8[Tensor, "3 h w"]:
    """Draw a window, and the colour beside it.

    Cut out first and stretched once, so that the cost depends on what is shown.

    Args:
        image: RGB, 0 to 255.
        window: What is shown where.
        size: Height and width of the result.
        preprocess: Has the filter.
        colour: Three values.
    """
    rows, columns = window.source.slices
    place = window.place
    shown = preprocess.scale(image[:, rows, columns], (place.rows, place.columns))
    if (place.rows, place.columns) == size:
        return shown
    canvas = np.empty((*size, 3), dtype=np.uint8)
    canvas[:] = colour
    canvas[place.slices] = shown.permute(1, 2, 0).numpy()
    return torch.from_numpy(canvas).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]


def moved(boxes: Boxes, window: Window, min_visible: float) -> tuple[Box, ...]:
    """The boxes of an image where the window shows them, cut off at its edges.

    Args:
        boxes: Of an image of known size.
        window: What is shown where.
        min_visible: A box is kept where the window shows this share of it, or its centre: the
            inside of a large object is no background. A crowd is kept whatever remains of it, for
            it says where nothing is to be learned.
    """
    assert boxes.size is not None, "a sample that was read knows its size"
    source, place = window
    down, across = place.rows / source.rows, place.columns / source.columns
    limits = Rectangle(0, 0, *boxes.size)
    kept: list[Box] = []
    for box in boxes.items:
        x1, y1, x2, y2 = clipped(box.corners, limits)
        left, right = (place.left + (x - source.left) * across for x in (x1, x2))
        top, bottom = (place.top + (y - source.top) * down for y in (y1, y2))
        corners = clipped((left, top, right, bottom), place)
        width, height = corners[2] - corners[0], corners[3] - corners[1]
        if width < LEAST or height < LEAST:
            continue
        share = width * height / ((right - left) * (bottom - top))
        centred = holds(place, (left + right) / 2, (top + bottom) / 2)
        if box.crowd or centred or share >= min_visible:
            area = None if box.area is None else box.area * share * down * across
            kept.append(replace(box, corners=corners, area=area))
    return tuple(kept)


def holds(limits: Rectangle, x: float, y: float) -> bool:
    """Whether a point lies in a rectangle."""
    return (
        limits.left <= x <= limits.left + limits.columns
        and limits.top <= y <= limits.top + limits.rows
    )


def clipped(corners: Corners, limits: Rectangle) -> Corners:
    """The part of a box within a rectangle; a box outside comes to have no area."""
    x1, y1, x2, y2 = corners
    left, top = float(limits.left), float(limits.top)
    right, bottom = left + limits.columns, top + limits.rows
    return (
        min(max(x1, left), right),
        min(max(y1, top), bottom),
        min(max(x2, left), right),
        min(max(y2, top), bottom),
    )


def mirrored(view: View) -> View:
    """Left and right change places."""
    boxes = boxes_of(view)
    width = view.image.shape[2]
    items = [
        replace(box, corners=(width - x2, y1, width - x1, y2))
        for box in boxes.items
        for x1, y1, x2, y2 in (box.corners,)
    ]
    return View(view.image.flip(2), Boxes(tuple(items), boxes.size))


def upside_down(view: View) -> View:
    """Top and bottom change places."""
    boxes = boxes_of(view)
    height = view.image.shape[1]
    items = [
        replace(box, corners=(x1, height - y2, x2, height - y1))
        for box in boxes.items
        for x1, y1, x2, y2 in (box.corners,)
    ]
    return View(view.image.flip(1), Boxes(tuple(items), boxes.size))


def transposed(view: View) -> View:
    """Rows and columns change places."""
    boxes = boxes_of(view)
    items = [
        replace(box, corners=(y1, x1, y2, x2))
        for box in boxes.items
        for x1, y1, x2, y2 in (box.corners,)
    ]
    image = view.image.transpose(1, 2)
    return View(image, Boxes(tuple(items), (image.shape[1], image.shape[2])))


def boxes_of(view: View) -> Boxes:
    """Its label, which is boxes."""
    assert isinstance(view.target, Boxes), "a view of a sample with boxes"
    return view.target
