"""Masks drawn over an image: regions in colours with crisp edges, and a legend below."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vitrail import masks
from vitrail.palette import FIRST, Colour, colours
from vitrail.types import Corners, Segmentation

FILL = 0.45
"""How much of a region is its colour; the image shows through the rest."""

Entry = tuple[str, Sequence[Colour]]
"""A line of a legend: a text, and the colours that it explains."""


def draw_masks(
    image: UInt8[Tensor, "3 H W"],
    found: Segmentation,
    classes: Sequence[str],
    things: Collection[str] = (),
) -> UInt8[Tensor, "3 _H _W"]:
    """A copy of an image with its regions, and a legend below where there are any.

    Args:
        image: RGB, 0 to 255.
        found: Its regions.
        classes: All classes of the model: a class has the same colour on every image.
        things: Classes that are objects. Each object has its own colour, unlike its neighbours.
    """
    chosen = _chosen(found, classes, things)
    painted = paint(image, found, chosen)
    entries: dict[str, list[Colour]] = {}
    for region, colour in zip(found.regions, chosen, strict=True):
        entries.setdefault(region.label, []).append(colour)
    texts = [
        (f"{len(own)} {name}" if name in things else name, list(dict.fromkeys(own)))
        for name, own in entries.items()
    ]
    return _with_legend(painted, texts) if texts else painted


def paint(
    image: UInt8[Tensor, "3 H W"], found: Segmentation, chosen: Sequence[Colour]
) -> UInt8[Tensor, "3 H W"]:
    """A copy of an image under its regions, the first on top.

    Args:
        image: RGB, 0 to 255.
        found: Its regions.
        chosen: A colour each.
    """
    pixels = image.permute(1, 2, 0).numpy().astype(np.float32)
    line = max(1, round(max(found.size) / 400))
    pairs = list(zip(found.regions, chosen, strict=True))
    for region, colour in reversed(pairs):
        left, top, right, bottom = map(int, masks.corners(region.rle, found.size))
        mask = masks.decode(region.rle, found.size)[top:bottom, left:right]
        if not mask.size:
            continue
        at = (slice(top, bottom), slice(left, right))
        sides = (top > 0, bottom < found.size[0], left > 0, right < found.size[1])
        pixels[at] = _painted(pixels[at], mask, edge(mask, line, sides), colour)
    rounded = torch.from_numpy(pixels.round().astype(np.uint8))  # pyright: ignore[reportUnknownMemberType]
    return rounded.permute(2, 0, 1)


def edge(
    mask: Bool[np.ndarray, "H W"],
    width: int,
    sides: tuple[bool, bool, bool, bool] = (True, True, True, True),
) -> Bool[np.ndarray, "H W"]:
    """Pixels of a mask that are at most `width` from one outside it.

    Args:
        mask: The mask, or a part of an image with all of it.
        width: Pixels.
        sides: Whether the image goes on above, below, left and right; its own border is no edge.
    """
    inner = mask
    top, bottom, left, right = sides
    for _ in range(width):
        wide = np.pad(inner, 1, constant_values=True)
        wide[0], wide[-1] = not top, not bottom
        wide[:, 0] &= not left
        wide[:, -1] &= not right
        near = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
        inner = inner & near
    return mask & ~inner


def _painted(
    pixels: Float32[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    rim: Bool[np.ndarray, "H W"],
    colour: Colour,
) -> Float32[np.ndarray, "H W 3"]:
    strength = np.where(rim, 1.0, np.where(mask, FILL, 0.0)).astype(np.float32)[..., None]
    return pixels * (1 - strength) + np.array(colour, dtype=np.float32) * strength


def _chosen(found: Segmentation, classes: Sequence[str], things: Collection[str]) -> list[Colour]:
    """The colour of each region: of its class, or of an object one that no neighbour has."""
    of_class = dict(zip(classes, colours(len(classes)), strict=True))
    boxes = [masks.corners(region.rle, found.size) for region in found.regions]
    near = max(found.size) / 50
    chosen: list[Colour] = []
    for i, region in enumerate(found.regions):
        if region.label not in things:
            chosen.append(of_class[region.label])
            continue
        used = [chosen[k] for k in range(i) if _close(boxes[i], boxes[k], near)]
        chosen.append(min(FIRST, key=used.count))
    return chosen


def _close(first: Corners, second: Corners, near: float) -> bool:
    """Whether two boxes are within a distance of each other."""
    return (
        first[0] - near <= second[2]
        and second[0] - near <= first[2]
        and first[1] - near <= second[3]
        and second[1] - near <= first[3]
    )


def _with_legend(
    image: UInt8[Tensor, "3 H W"], entries: Sequence[Entry]
) -> UInt8[Tensor, "3 _H _W"]:
    """The image with lines of text below: nothing of it is hidden."""
    height, width = image.shape[1:]
    letter = max(10, round(max(height, width) / 45))
    font = ImageFont.load_default(letter)
    row, box = round(letter * 1.6), round(letter * 0.9)
    lengths = [round(letter * 2.4 + font.getlength(text)) for text, _ in entries]
    places, size = _layout(lengths, width, row)
    canvas = Image.new("RGB", (size[0], height + size[1]), "white")
    canvas.paste(Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()))
    pen = ImageDraw.Draw(canvas)
    for (start, y), (text, own) in zip(places, entries, strict=True):
        top = height + y + (row - box) // 2
        shown = own[: len(FIRST)]
        x = start + round(letter * 0.4)
        for i, colour in enumerate(shown):
            # Several colours share the square.
            left, right = (x + round(box * side / len(shown)) for side in (i, i + 1))
            pen.rectangle((left, top, max(left, right - 1), top + box - 1), fill=colour)
        middle = height + y + row / 2
        pen.text((x + box * 1.4, middle), text, fill="black", font=font, anchor="lm")
    pixels = np.array(canvas)
    return torch.from_numpy(pixels).permute(2, 0, 1)  # pyright: ignore[reportUnknownMemberType]


def _layout(
    lengths: Sequence[int], width: int, row: int
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Where each entry begins, and the size of the whole, at least as wide as the image."""
    x = y = 0
    widest = width
    places: list[tuple[int, int]] = []
    for length in lengths:
        if x and x + length > width:
            x, y = 0, y + row
        places.append((x, y))
        x += length
        widest = max(widest, x)
    return places, (widest, y + row)
