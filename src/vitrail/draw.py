"""Boxes drawn on an image, with class and score."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vitrail.types import Corners

Colour = tuple[int, int, int]


def colour_of(name: str) -> Colour:
    """A strong colour for a class, the same wherever its name is."""
    # No checksum: of names that differ by a letter it makes neighbouring hues.
    number = int.from_bytes(hashlib.sha3_256(name.encode()).digest()[:4], "little")
    hue, light = (number >> 8) / 2**24, (0.42, 0.5, 0.58)[number % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, light, 0.9))
    return red, green, blue


def draw_boxes(
    image: UInt8[Tensor, "3 H W"],
    boxes: Sequence[Corners],
    labels: Sequence[str],
    scores: Sequence[float] = (),
) -> UInt8[Tensor, "3 H W"]:
    """A copy of an image with its objects framed and named.

    Lines and letters grow with the image. What comes first is drawn last, and so on top.

    Args:
        image: RGB, 0 to 255.
        boxes: In its pixels.
        labels: One class name a box.
        scores: One a box; none for boxes that are labels.
    """
    height, width = image.shape[1:]
    canvas = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(10, round(max(height, width) / 45)))
    line = max(1, round(max(height, width) / 320))
    texts = (
        [f"{label} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
        if scores
        else labels
    )
    for box, label, text in reversed(list(zip(boxes, labels, texts, strict=True))):
        colour = colour_of(label)
        x1, y1, x2, y2 = _inside(box, (width, height))
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=line)
        _write(pen, text, (x1, y1), colour, font)
    pixels = np.array(canvas)
    return torch.from_numpy(pixels).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]


def _inside(box: Corners, size: tuple[int, int]) -> Corners:
    """The outermost pixels of a box that are on the image."""
    x1, y1, x2, y2 = box
    right, bottom = (float(side - 1) for side in size)
    left, top = min(max(x1, 0.0), right), min(max(y1, 0.0), bottom)
    return left, top, min(max(x2 - 1, left), right), min(max(y2 - 1, top), bottom)


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Text on a plate in the colour of its class, above the corner where there is room."""
    margin = 2
    left, top, right, bottom = font.getbbox(text)
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x = max(0, min(corner[0], pen.im.size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    red, green, blue = colour
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    pen.text(
        (x + margin - left, y + margin - top), text, fill="white" if dark else "black", font=font
    )
