"""Which part of an image with segments a training view shows, how large, and turned how far.

Image and segments are cut out first and resampled once, the segments by their nearest pixel.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from vitrail.config import Config
from vitrail.data.augment import NoGeometry
from vitrail.data.box_geometry import Positive, ScaleJitter, along, between
from vitrail.data.framing import Rectangle, Window
from vitrail.data.segment_views import canvas, nearest, with_void
from vitrail.types import Grid, Segments

Point = tuple[float, float]
"""Row and column."""


class MaskCrop(Config):
    """A random part, zoomed, stretched and turned; what lies outside the image is not judged.

    Attributes:
        scale: Least and largest zoom, next to the size of evaluation; its logarithm is uniform.
        ratio: Least and largest stretch of the width over that of the height.
        degrees: Rotation, from -degrees to degrees. Above 0 the image is resampled bilinearly.
    """

    kind: Literal["crop"] = "crop"
    scale: tuple[Positive, Positive] = (0.7, 1.4)
    ratio: tuple[Positive, Positive] = (1.0, 1.0)
    degrees: float = Field(default=0.0, ge=0, le=180)

    @model_validator(mode="after")
    def _ordered(self) -> MaskCrop:
        if self.scale[0] > self.scale[1] or self.ratio[0] > self.ratio[1]:
            raise ValueError("scale and ratio are written (least, largest)")
        return self


MaskGeometry = Annotated[NoGeometry | ScaleJitter | MaskCrop, Field(discriminator="kind")]


class Cut(NamedTuple):
    """A window, turned about its middle.

    Attributes:
        window: What is shown where, before it is turned.
        angle: Radians.
    """

    window: Window
    angle: float = 0.0


def cut(
    geometry: MaskGeometry,
    image: Grid,
    evaluated: Grid,
    size: Grid,
    point: Point | None,
    rng: np.random.Generator,
) -> Cut:
    """Draw what is shown.

    Args:
        geometry: How.
        image: Its height and width.
        evaluated: Those to which evaluation stretches it.
        size: Those of the view.
        point: A place of the image that the view is to show, or None.
        rng: The only source of randomness.
    """
    zoom, stretch, angle = 1.0, 1.0, 0.0
    match geometry:
        case NoGeometry():
            pass
        case ScaleJitter(scale=scale):
            zoom = between(scale, rng.random())
        case MaskCrop() as crop:
            large, wide, turn = rng.random(3).tolist()
            zoom, stretch = between(crop.scale, large), math.sqrt(between(crop.ratio, wide))
            angle = math.radians(crop.degrees) * (2 * turn - 1)
    down, across = rng.random(2).tolist()
    y, x = point or (None, None)
    rows = along(image[0], zoom / stretch * evaluated[0], size[0], down, y)
    columns = along(image[1], zoom * stretch * evaluated[1], size[1], across, x)
    source, place = (
        Rectangle(row[0], column[0], row[1], column[1])
        for row, column in zip(rows, columns, strict=True)
    )
    return Cut(Window(source, place), angle)


def shown(segments: Segments, window: Window, size: Grid) -> Segments:
    """The segments in a window; beside it nothing is judged. Some may have lost their pixels."""
    rows, columns = window.source.slices
    place = window.place
    ids = nearest(segments.ids.numpy()[:, rows, columns], (place.rows, place.columns))
    if ids.shape[1:] == size:
        return Segments(torch.from_numpy(ids), segments.labels, segments.crowds)  # pyright: ignore[reportUnknownMemberType]
    whole = canvas(len(ids), size, len(segments.labels) + 1)
    whole[:, *place.slices] = ids
    return with_void(whole, segments)


def turned(
    image: UInt8[Tensor, "3 H W"],
    segments: Segments,
    part: Cut,
    size: Grid,
    colour: NDArray[np.uint8],
) -> tuple[UInt8[Tensor, "3 h w"], Segments]:
    """Draw a window that is turned about its middle, from whatever of the image is there.

    Args:
        image: RGB, 0 to 255.
        segments: Of the image.
        part: What is shown.
        size: Height and width of the result.
        colour: Three values, for what lies outside the image.
    """
    matrix, box = _way_back(part, size, segments.size)
    rows, columns = box.slices
    pixels = image[:, rows, columns].permute(1, 2, 0).contiguous().numpy()
    red, green, blue = colour.tolist()
    picture = Image.fromarray(pixels).transform(
        (size[1], size[0]),
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BILINEAR,
        fillcolor=(red, green, blue),
    )
    drawn = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]
    ids = segments.ids.numpy()[:, rows, columns]
    return drawn, with_void(_turned_ids(ids, matrix, size, len(segments.labels) + 1), segments)


Matrix = tuple[float, float, float, float, float, float]
"""From a place (x, y) of the view to x = a x + b y + c and y = d x + e y + f of the image."""


def _way_back(part: Cut, size: Grid, image: Grid) -> tuple[Matrix, Rectangle]:
    """The map from the view to a box of the image, and that box, which holds all that is shown."""
    (source, place), angle = part
    down, across = source.rows / place.rows, source.columns / place.columns
    cos, sin = math.cos(angle), math.sin(angle)
    # Turned in pixels of the view, so that a stretched image is turned as one sees it.
    a, b, d, e = cos * across, sin * across, -sin * down, cos * down
    middle_x, middle_y = place.left + place.columns / 2, place.top + place.rows / 2
    c = source.left + source.columns / 2 - a * middle_x - b * middle_y
    f = source.top + source.rows / 2 - d * middle_x - e * middle_y
    corners = [(x, y) for x in (0, size[1]) for y in (0, size[0])]
    xs, ys = [a * x + b * y + c for x, y in corners], [d * x + e * y + f for x, y in corners]
    left, right = _within(min(xs), max(xs), image[1])
    top, bottom = _within(min(ys), max(ys), image[0])
    return (a, b, c - left, d, e, f - top), Rectangle(top, left, bottom - top, right - left)


def _within(first: float, last: float, side: int) -> tuple[int, int]:
    """Whole pixels around a stretch, one more at each end for the filter."""
    start = min(max(0, math.floor(first) - 1), side - 1)
    return start, max(start + 1, min(side, math.ceil(last) + 1))


def _turned_ids(ids: NDArray[np.int16], matrix: Matrix, size: Grid, void: int) -> NDArray[np.int16]:
    """The number under the centre of each pixel."""
    a, b, c, d, e, f = (np.float32(value) for value in matrix)
    x = np.arange(size[1], dtype=np.float32) + np.float32(0.5)
    y = (np.arange(size[0], dtype=np.float32) + np.float32(0.5))[:, None]
    height, width = ids.shape[1:]
    column, row = a * x + (b * y + c), d * x + (e * y + f)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    flat = row.astype(np.int32) * width + column.astype(np.int32)
    result = ids.reshape(len(ids), -1).take(np.where(inside, flat, 0), axis=1)
    result[:, ~inside] = 0
    result[0, ~inside] = void
    return result
