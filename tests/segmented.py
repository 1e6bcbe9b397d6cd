"""Segmenters and masks small enough for a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tiny import ListDataset, randomise, tiny_config
from vitrail.data.dataset import SegmentKind
from vitrail.data.preprocess import HALF, Preprocess, Squash
from vitrail.masks import encode
from vitrail.model import Model, ModelConfig
from vitrail.tasks.detectors import (
    C2fProjectorConfig,
    DeformableConfig,
    QueryReadout,
    TwoStageConfig,
)
from vitrail.tasks.segment import SegmentConfig
from vitrail.tasks.segmenters import LinearReadout, MatchedQueriesReadout, PixelsConfig
from vitrail.types import VOID, Grid, Region, Segmentation, Segments, Target

SIZE = (48, 64)
"""Height and width of the scenes."""

Part = tuple[int, int, int, int]
"""A rectangle: first row and column, and those behind the last."""

SMALL: dict[str, Any] = {"width": 16, "depth": 1, "heads": 2, "hidden": 16}

QUERIES = MatchedQueriesReadout(
    pixels=PixelsConfig(stride=4, widths=(8,), skip=False),
    detector=QueryReadout(
        projector=C2fProjectorConfig(blocks=1),
        queries=TwoStageConfig(count=5),
        attention=DeformableConfig(heads=2, points=2),
        **SMALL,
    ),
)


def tiny_segmenter(classes: Sequence[str] = ("ant", "bee"), **task: Any) -> Model:
    """A segmenter with random weights for images of `SIZE`."""
    matched = task.get("answer", "semantic") != "semantic"
    readout = QUERIES if matched else LinearReadout()
    config = ModelConfig(
        backbone=tiny_config(image_size=SIZE),
        task=SegmentConfig(classes=tuple(classes), readout=readout, **task),
        preprocess=Preprocess(resize=Squash(size=SIZE), mean=HALF, std=HALF),
    )
    return randomise(Model(config), std=0.2).eval()


def area_of(*parts: Part, size: Grid = SIZE) -> np.ndarray:
    """A mask of rectangles."""
    mask = np.zeros(size, dtype=np.bool_)
    for top, left, bottom, right in parts:
        mask[top:bottom, left:right] = True
    return mask


def truth(*segments: tuple[int, Part] | tuple[int, Part, bool], size: Grid = SIZE) -> Segments:
    """Segments of class and rectangle, a crowd where the third is true; each on its own layer."""
    layers = [
        k * area_of(part, size=size).astype(np.int16) for k, (_, part, *_) in enumerate(segments, 1)
    ]
    ids = np.stack(layers) if layers else np.zeros((1, *size), dtype=np.int16)
    crowds = tuple(bool(rest and rest[0]) for _, _, *rest in segments)
    labels = tuple(label for label, *_ in segments)
    return Segments(torch.from_numpy(ids), labels, crowds if any(crowds) else ())


def void(*parts: Part, size: Grid = SIZE) -> Segments:
    """Nothing but pixels that nobody judges."""
    return Segments(torch.from_numpy(area_of(*parts, size=size)[None].astype(np.int16)), (VOID,))


def answer(
    *regions: tuple[str, Part] | tuple[str, Part, float],
    size: Grid = SIZE,
    confidence: bytes | None = None,
) -> Segmentation:
    """Regions of class, rectangle and score, which is 0.9 if it is not given."""
    made = [
        Region(name, float(rest[0]) if rest else 0.9, encode(area_of(part, size=size)))
        for name, part, *rest in regions
    ]
    return Segmentation(size, tuple(made), confidence)


class MaskList(ListDataset):
    """Images with segments in a list; None stands for a file that cannot be read."""

    def __init__(
        self,
        images: Sequence[torch.Tensor | None],
        targets: Sequence[Target],
        classes: Sequence[str] = ("ant", "bee"),
        *,
        segments: SegmentKind = "semantic",
        background: bool = True,
        things: tuple[bool, ...] | None = None,
    ) -> None:
        super().__init__(images, targets, classes)
        self.segments, self.background, self.things = segments, background, things
