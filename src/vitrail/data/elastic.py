"""Elastic distortion for handwriting (Simard et al. 2003, section 2): no two hands write alike.

The image is laid on a net of squares. Its knots follow a small rotation, scaling and shear about
the centre, and each is then moved a little by itself; between knots it is stretched bilinearly.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from vitrail.config import Config

Positive = Annotated[float, Field(gt=0)]


class Elastic(Config):
    """An affine map with a random displacement of its own for each knot of a net.

    Attributes:
        cell: Pixels between two knots; about the height of a stroke's detail.
        amplitude: Standard deviation of a knot's displacement in pixels.
        degrees: Rotation, from -degrees to degrees.
        translate: Shift as a share of the height, from -translate to translate, both ways.
        scale: Least and largest enlargement.
        shear: Angle of the slant in degrees, from -shear to shear.
    """

    kind: Literal["elastic"] = "elastic"
    cell: Positive = 8.0
    amplitude: float = Field(default=1.0, ge=0)
    degrees: float = Field(default=3.0, ge=0, le=180)
    translate: float = Field(default=0.05, ge=0, lt=1)
    scale: tuple[Positive, Positive] = (0.9, 1.1)
    shear: float = Field(default=15.0, ge=0, lt=90)


def elastic(
    config: Elastic, pixels: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Distort an image; what is uncovered repeats the nearest edge.

    Args:
        config: How much.
        pixels: Height, width, channels.
        rng: The only source of randomness.
    """
    height, width = pixels.shape[:2]
    rows, columns = (max(1, round(side / config.cell)) for side in (height, width))
    y, x = _knots(height, rows), _knots(width, columns)
    source = _source_of_knots(config, y, x, (height, width), rng)
    margin = math.ceil(config.cell)
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    limit = np.array([width + 2 * margin, height + 2 * margin]) - 1.0
    source = np.clip(source + margin, 0, limit)
    mesh = [
        (
            (round(x[j]), round(y[i]), round(x[j + 1]), round(y[i + 1])),
            # Corners in the order of Pillow: top left, bottom left, bottom right, top right.
            tuple(source[[i, i + 1, i + 1, i], [j, j, j + 1, j + 1]].ravel().tolist()),
        )
        for i in range(rows)
        for j in range(columns)
    ]
    moved = Image.fromarray(padded).transform(
        (width, height), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR
    )
    return np.array(moved)  # a copy: torch wants pixels that can be written to


def _knots(side: int, cells: int) -> NDArray[np.float64]:
    return np.linspace(0, side, cells + 1, dtype=np.float64)


def _source_of_knots(
    config: Elastic,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> Float[np.ndarray, "r c 2"]:
    """Where in the image the pixel that stands at each knot comes from, (x, y)."""
    turn, lean, large, down, across = rng.random(5).tolist()
    angle = math.radians(config.degrees) * (2 * turn - 1)
    slant = math.tan(math.radians(config.shear) * (2 * lean - 1))
    zoom = config.scale[0] + large * (config.scale[1] - config.scale[0])
    shift = config.translate * size[0] * np.array([2 * across - 1, 2 * down - 1])
    centre = np.array([size[1] / 2, size[0] / 2])
    away = np.stack(np.meshgrid(x, y), axis=-1) - centre - shift
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    back = np.array([[cos, sin + slant * cos], [-sin, cos - slant * sin]])
    own = rng.normal(0, config.amplitude, away.shape)
    return away @ back.T + centre + own
