"""Which part of an image a training view shows, and how large.

Sizes are those of evaluation times a zoom: an object in a view that is not zoomed is as large as
evaluation will show it, and as wide for its height.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from vitrail.config import Config
from vitrail.data.augment import NoGeometry
from vitrail.data.framing import Rectangle, Window, clipped
from vitrail.types import Boxes, Grid

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Span = tuple[int, int]
"""Start and length."""
OFF = 0.15
"""Share of a view by which its middle is away from its ends: turned by any angle, a square view
shows the middle still."""


class ScaleJitter(Config):
    """Large-scale jitter: zoom, then cut out or fill up (Ghiasi et al. 2021, section 3).

    What is filled up has the mean colour.

    Attributes:
        scale: Least and largest zoom; its logarithm is uniform.
    """

    kind: Literal["scale_jitter"] = "scale_jitter"
    scale: tuple[Positive, Positive] = (0.5, 2.0)

    @model_validator(mode="after")
    def _ordered(self) -> ScaleJitter:
        if self.scale[0] > self.scale[1]:
            raise ValueError("scale is written (least, largest)")
        return self


class BoxCrop(Config):
    """A random rectangle with the centre of an object in it, stretched (Liu et al. 2016, SSD).

    Attributes:
        area: Least and largest share of the image's area.
        ratio: Least and largest stretch of the width over that of the height.
    """

    kind: Literal["crop"] = "crop"
    area: tuple[Share, Share] = (0.3, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _ordered(self) -> BoxCrop:
        if self.area[0] > self.area[1] or self.ratio[0] > self.ratio[1]:
            raise ValueError("area and ratio are written (least, largest)")
        return self


BoxGeometry = Annotated[NoGeometry | ScaleJitter | BoxCrop, Field(discriminator="kind")]


def window(
    geometry: BoxGeometry, boxes: Boxes, evaluated: Grid, size: Grid, rng: np.random.Generator
) -> Window:
    """Draw a window.

    Args:
        geometry: How.
        boxes: Of the image.
        evaluated: Height and width to which evaluation stretches the image.
        size: Height and width of the view. It may have another shape: what does not fit is cut
            off at a random place, what is missing is filled up.
        rng: The only source of randomness.
    """
    match geometry:
        case NoGeometry():
            return _zoomed(boxes, evaluated, size, 1.0, rng)
        case ScaleJitter(scale=scale):
            return _zoomed(boxes, evaluated, size, between(scale, rng.random()), rng)
        case BoxCrop() as crop:
            source = _crop(crop, boxes, evaluated, size, rng)
            return Window(source, Rectangle(0, 0, *size))


def between(limits: tuple[float, float], draw: float) -> float:
    """A number whose logarithm is uniform between those of the limits, if the draw is in 0 to 1."""
    return limits[0] * (limits[1] / limits[0]) ** draw


def _zoomed(
    boxes: Boxes, evaluated: Grid, size: Grid, zoom: float, rng: np.random.Generator
) -> Window:
    height, width = _size(boxes)
    down, across = rng.random(2).tolist()
    rows = along(height, zoom * evaluated[0], size[0], down)
    columns = along(width, zoom * evaluated[1], size[1], across)
    source, place = zip(rows, columns, strict=True)
    return Window(_rectangle(*source), _rectangle(*place))


def along(
    side: int, long: float, shown: int, draw: float, middle: float | None = None
) -> tuple[Span, Span]:
    """What is taken from one side of the image, and where it is laid along that of the view.

    Args:
        side: Length of the image.
        long: Its length after the zoom.
        shown: Length of the view.
        draw: Where to cut or to lay, 0 to 1.
        middle: A place of the image that is to lie in the middle of the view, `OFF` from its ends
            unless the image ends before.
    """
    if long >= shown:
        length = max(1, round(side * shown / long))
        return (_around(middle, length, side, draw, OFF * length), length), (0, shown)
    length = max(1, round(long))
    return (0, side), (int(draw * (shown - length + 1)), length)


def _crop(
    crop: BoxCrop, boxes: Boxes, evaluated: Grid, size: Grid, rng: np.random.Generator
) -> Rectangle:
    """A rectangle around the centre of an object, or anywhere in an image without any."""
    sides = _size(boxes)
    share, ratio, down, across = rng.random(4).tolist()
    area = crop.area[0] + share * (crop.area[1] - crop.area[0])
    stretch = between(crop.ratio, ratio)
    # The largest rectangle that has the shape of the view, as evaluation would show it.
    zoom = [shown / whole for shown, whole in zip(size, evaluated, strict=True)]
    shape = [side * factor / max(zoom) for side, factor in zip(sides, zoom, strict=True)]
    factors = math.sqrt(area / stretch), math.sqrt(area * stretch)
    rows, columns = (
        min(side, max(1, round(length * factor)))
        for side, length, factor in zip(sides, shape, factors, strict=True)
    )
    y, x = _centre(boxes, rng)
    return _rectangle(
        (_around(y, rows, sides[0], down), rows), (_around(x, columns, sides[1], across), columns)
    )


def _centre(boxes: Boxes, rng: np.random.Generator) -> tuple[float, float] | tuple[None, None]:
    """Of one object that can be told from others; y first."""
    single = [box for box in boxes.items if not box.crowd]
    if not single:
        return None, None
    box = single[int(rng.integers(len(single)))]
    x1, y1, x2, y2 = clipped(box.corners, Rectangle(0, 0, *_size(boxes)))
    return (y1 + y2) / 2, (x1 + x2) / 2


def _around(centre: float | None, length: int, side: int, draw: float, margin: float = 0.0) -> int:
    """Where a stretch of this length begins that lies within the side and holds the centre."""
    first, last = 0, side - length
    if centre is not None:
        first, last = (
            min(last, max(first, math.ceil(centre + margin) - length)),
            max(first, min(last, math.floor(centre - margin))),
        )
    return first + int(draw * (last - first + 1))


def _rectangle(rows: Span, columns: Span) -> Rectangle:
    return Rectangle(rows[0], columns[0], rows[1], columns[1])


def _size(boxes: Boxes) -> Grid:
    assert boxes.size is not None, "a sample that was read knows its size"
    return boxes.size
