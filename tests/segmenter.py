"""Segmenters and scenes small enough for a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tiny import ListDataset, randomise, tiny_config
from vitrail.backbones import BackboneConfig
from vitrail.data.dataset import SegmentKind
from vitrail.data.preprocess import HALF, Fit, Preprocess, Squash
from vitrail.model import Model, ModelConfig
from vitrail.tasks.detectors import (
    C2fProjectorConfig,
    DeformableConfig,
    DenseConfig,
    LearnedConfig,
    LinearProjectorConfig,
    QueryReadout,
    TwoStageConfig,
)
from vitrail.tasks.joint_segmenters import EomtReadout, SegmenterReadout
from vitrail.tasks.segment import SegmentConfig
from vitrail.tasks.segmenters import (
    ClassQueriesReadout,
    LinearReadout,
    MatchedQueriesReadout,
    PixelsConfig,
    SegmentReadout,
)
from vitrail.types import Segments, Target

SIZE = (32, 48)
PIXELS = PixelsConfig(stride=2, widths=(4, 8), skip=True)
READOUTS: dict[str, SegmentReadout] = {
    "linear": LinearReadout(),
    "linear pixels": LinearReadout(logits="pixel"),
    "class queries": ClassQueriesReadout(pixels=PIXELS, width=16, depth=1, heads=2, hidden=16),
    "matched queries": MatchedQueriesReadout(
        pixels=PIXELS,
        detector=QueryReadout(
            projector=C2fProjectorConfig(blocks=1),
            queries=TwoStageConfig(count=5, groups=2),
            attention=DeformableConfig(heads=2, points=2),
            width=16,
            depth=2,
            heads=2,
            hidden=16,
        ),
    ),
    "learned queries": MatchedQueriesReadout(
        pixels=PIXELS,
        detector=QueryReadout(
            projector=LinearProjectorConfig(),
            queries=LearnedConfig(count=5),
            attention=DenseConfig(heads=2),
            refinement="once",
            width=16,
            depth=2,
            heads=2,
            hidden=16,
        ),
    ),
    "segmenter": SegmenterReadout(width=16, depth=1, heads=2, hidden=16),
    "eomt": EomtReadout(queries=5, depth=1, heads=2, upscale=1, mlp_ratio=1.0),
}
"""One of every kind."""


def tiny_segmenter(
    readout: str = "class queries",
    *,
    classes: Sequence[str] = ("ant", "bee"),
    fit: bool = False,
    backbone: BackboneConfig | None = None,
    **task: Any,
) -> Model:
    """A segmenter with random weights for images of `SIZE`."""
    config = ModelConfig(
        backbone=backbone or tiny_config(image_size=SIZE),
        task=SegmentConfig(classes=tuple(classes), readout=READOUTS[readout], **task),
        preprocess=Preprocess(
            resize=Fit(short=24, long=48, multiple=16) if fit else Squash(size=SIZE),
            mean=HALF,
            std=HALF,
        ),
    )
    return randomise(Model(config), std=0.2).eval()


def segments(
    *rows: str, labels: Sequence[int] | None = None, crowds: Sequence[bool] = ()
) -> Segments:
    """Segments drawn by hand: a digit is the number of a segment, a dot is background.

    Args:
        rows: Of one layer, or of several with an empty row in between.
        labels: Class of each; by default segment k is of class k - 1.
        crowds: As in `Segments`.
    """
    layers: list[list[list[int]]] = [[]]
    for row in rows:
        if row:
            layers[-1].append([0 if mark == "." else int(mark) for mark in row])
        else:
            layers.append([])
    ids = torch.tensor(layers, dtype=torch.int16)
    return Segments(
        ids, tuple(range(int(ids.max()))) if labels is None else tuple(labels), tuple(crowds)
    )


class SegmentList(ListDataset):
    """Images with segments in a list; None stands for a file that cannot be read."""

    def __init__(
        self,
        images: Sequence[torch.Tensor | None],
        targets: Sequence[Target],
        classes: Sequence[str] = ("ant", "bee"),
        kind: SegmentKind = "semantic",
        *,
        background: bool = True,
    ) -> None:
        super().__init__(images, targets, classes)
        self.segments, self.background = kind, background
