"""Regions over an image: what is true, what was answered, where both differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitrail.draw_masks import paint
from vitrail.metrics.mask_truth import Truth, truth_of
from vitrail.metrics.segment_pairs import Paired, Verdict
from vitrail.metrics.segmentation_maps import ClassMaps
from vitrail.palette import FIRST, Colour, colours
from vitrail.report_pictures import Picture, picture
from vitrail.types import Grid, Region, Segmentation, Segments

LONGEST = 448
"""Longest side of a picture in pixels."""
LONGEST_ERRORS = 720
"""Likewise where errors are marked, which may be thin."""

SOLID = 200
"""How much an error covers the image, from 0 to 255."""
DIMMED = 0.55
"""Brightness of the image below."""

RIGHT, MISSED, WRONG, OTHER, SPLIT = (FIRST[i] for i in (1, 6, 4, 3, 2))
GREY, WHITE, UNJUDGED = (150, 150, 150), (255, 255, 255), (0, 0, 0)

ERRORS: dict[str, tuple[str, Colour]] = {
    "right": ("right", RIGHT),
    "missed": ("missed", MISSED),
    "wrong": ("found where nothing is", WRONG),
    "other": ("taken for another class", OTHER),
    "unjudged": ("not judged", UNJUDGED),
}
"""What a pixel may be, in words and colour."""

VERDICTS: dict[Verdict, tuple[str, Colour]] = {
    "found": ("found", RIGHT),
    "missed": ("missed", MISSED),
    "merged": ("merged with others", OTHER),
    "split": ("split", SPLIT),
    "other": ("taken for another class", GREY),
}
"""What may become of an object, in words and colour."""

Pixels = UInt8[Tensor, "3 H W"]


def plain_picture(image: Pixels) -> Picture:
    """An image as it is."""
    return picture(_array(image), longest=LONGEST)


def class_picture(image: Pixels, found: Segmentation, classes: Sequence[str]) -> Picture:
    """An image under regions in the colours of their classes."""
    own = dict(zip(classes, colours(len(classes)), strict=True))
    return _painted(image, found, [own[region.label] for region in found.regions])


def object_pictures(
    image: Pixels, truth: Segmentation, found: Segmentation, paired: Paired
) -> tuple[Picture, Picture]:
    """An image under its objects, and under the answers: in one colour what belongs together.

    Answers that found nothing are white.
    """
    own = colours(len(truth.regions))
    answers = [WHITE] * len(found.regions)
    for m, n in paired.pairs:
        answers[m] = own[n]
    return _painted(image, truth, own), _painted(image, found, answers)


def error_picture(image: Pixels, maps: ClassMaps, *, background: bool) -> Picture:
    """Where pixels are right and wrong; without a background what is right is left grey."""
    none, truth, answer = maps.classes, maps.truth, maps.answer
    same = truth == answer
    kinds = np.select(
        [
            ~maps.judged,
            same & (truth != none) & background,
            ~same & (answer == none),
            ~same & (truth == none),
            ~same,
        ],
        [5, 1, 2, 3, 4],
    )
    table = np.array([(0, 0, 0, 0), *((*c, SOLID) for _, c in ERRORS.values())], dtype=np.uint8)
    base = Image.fromarray(_array(_dimmed(image))).convert("RGBA")
    mixed = Image.alpha_composite(base, Image.fromarray(table[kinds])).convert("RGB")
    return picture(np.asarray(mixed), longest=LONGEST_ERRORS)


def verdict_picture(image: Pixels, truth: Truth, found: Segmentation, paired: Paired) -> Picture:
    """What became of each object, above answers that found none."""
    rles = [*truth.rles, *([truth.void] if truth.void else [])]
    shades = [
        UNJUDGED if verdict == "crowd" else VERDICTS[verdict][1] for verdict in paired.verdicts
    ]
    shades += [UNJUDGED] * (truth.void is not None)
    regions = [Region("", 1.0, rle) for rle in rles] + [found.regions[m] for m in paired.wrong]
    layers = Segmentation(found.size, tuple(regions))
    return _painted(
        _dimmed(image), layers, [*shades, *[WRONG] * len(paired.wrong)], longest=LONGEST_ERRORS
    )


def segments_picture(
    image: Pixels, target: Segments, classes: Sequence[str], *, alone: bool, longest: int = 256
) -> Picture:
    """An image under its true segments; void is dark.

    Args:
        image: The image.
        target: Its segments.
        classes: Names, whose colours are taken.
        alone: Give each segment a colour of its own instead.
        longest: Longest side of the picture.
    """
    truth = truth_of(target, background=True)
    own, count = colours(len(classes)), len(truth.rles)
    shades = colours(count) if alone else [own[label] for label in truth.labels]
    rles = [*truth.rles, *([truth.void] if truth.void else [])]
    layers = Segmentation(target.size, tuple(Region("", 1.0, rle) for rle in rles))
    shades = [*shades, *[UNJUDGED] * (len(rles) - count)]
    return _painted(image, layers, shades, longest=longest)


def as_regions(truth: Truth, size: Grid, classes: Sequence[str]) -> Segmentation:
    """The truth as an answer that is wholly right."""
    pairs = zip(truth.rles, truth.labels, strict=True)
    return Segmentation(size, tuple(Region(classes[label], 1.0, rle) for rle, label in pairs))


def _painted(
    image: Pixels, found: Segmentation, chosen: Sequence[Colour], *, longest: int = LONGEST
) -> Picture:
    return picture(_array(paint(image, found, chosen)), longest=longest)


def _dimmed(image: Pixels) -> Pixels:
    """Grey and dark, so that colours stand out."""
    grey = Image.fromarray(_array(image)).convert("L")
    pixels = (np.asarray(grey, dtype=np.float32) * DIMMED).round().astype(np.uint8)
    return torch.from_numpy(pixels).expand(3, -1, -1)  # pyright: ignore[reportUnknownMemberType]


def _array(image: Pixels) -> NDArray[np.uint8]:
    pixels: NDArray[Any] = image.permute(1, 2, 0).contiguous().numpy()
    return pixels
