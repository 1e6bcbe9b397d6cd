"""Detectors and scenes small enough for a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tiny import ListDataset, randomise, tiny_config
from vitrail.backbones import BackboneConfig
from vitrail.data.preprocess import HALF, Fit, Preprocess, Squash
from vitrail.model import Model, ModelConfig
from vitrail.tasks.detect import DetectConfig
from vitrail.tasks.detectors import (
    C2fProjectorConfig,
    DeformableConfig,
    DenseConfig,
    EncoderConfig,
    LearnedConfig,
    LinearProjectorConfig,
    QueryReadout,
    TokensReadout,
    TwoStageConfig,
)
from vitrail.types import Box, Boxes, Target

SIZE = (32, 48)

SMALL: dict[str, Any] = {"width": 16, "depth": 2, "heads": 2, "hidden": 16}

READOUTS = {
    "deformable": QueryReadout(
        projector=C2fProjectorConfig(blocks=1),
        queries=TwoStageConfig(count=5),
        attention=DeformableConfig(heads=2, points=2),
        **SMALL,
    ),
    "two scales": QueryReadout(
        projector=C2fProjectorConfig(blocks=1, scales=(2.0, 0.5)),
        queries=TwoStageConfig(count=5),
        attention=DeformableConfig(heads=4, points=2),
        **SMALL,
    ),
    "dense": QueryReadout(
        projector=LinearProjectorConfig(),
        encoder=EncoderConfig(depth=1, heads=2, hidden=16),
        queries=LearnedConfig(count=5),
        attention=DenseConfig(heads=2),
        refinement="once",
        **SMALL,
    ),
    "tokens": TokensReadout(),
}
"""One of every kind."""


def tiny_detector(
    readout: str = "deformable",
    *,
    classes: Sequence[str] = ("ant", "bee"),
    fit: bool = False,
    backbone: BackboneConfig | None = None,
) -> Model:
    """A detector with random weights for images of `SIZE`."""
    tokens = 5 if readout == "tokens" else 0
    scoring = "softmax" if readout in ("dense", "tokens") else "sigmoid"
    config = ModelConfig(
        backbone=backbone or tiny_config(image_size=SIZE, detection_tokens=tokens),
        task=DetectConfig(classes=tuple(classes), readout=READOUTS[readout], scoring=scoring),
        preprocess=Preprocess(
            resize=Fit(short=24, long=48, multiple=16) if fit else Squash(size=SIZE),
            mean=HALF,
            std=HALF,
        ),
    )
    return randomise(Model(config), std=0.2).eval()


def scene(*items: tuple[float, float, float, float, int], size: tuple[int, int] = SIZE) -> Boxes:
    """Boxes of corners and class."""
    boxes = [
        Box((float(left), float(top), float(right), float(bottom)), int(label))
        for left, top, right, bottom, label in items
    ]
    return Boxes(tuple(boxes), size)


class BoxList(ListDataset):
    """Images with boxes in a list; None stands for a file that cannot be read."""

    boxes = True

    def __init__(
        self,
        images: Sequence[torch.Tensor | None],
        targets: Sequence[Target],
        classes: Sequence[str] = ("ant", "bee"),
    ) -> None:
        super().__init__(images, targets, classes)
