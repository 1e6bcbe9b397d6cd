"""Models and data small enough for a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from vitrail.backbones.vit import (
    ConvStemConfig,
    PatchStemConfig,
    PositionsConfig,
    StemConfig,
    ViTConfig,
)
from vitrail.data.dataset import Dataset
from vitrail.data.preprocess import CenterCrop, Preprocess
from vitrail.errors import BadSampleError
from vitrail.model import Model, ModelConfig
from vitrail.tasks.classify import ClassifyConfig
from vitrail.types import Boxes, Sample, Target

POSITIONS = get_args(get_args(PositionsConfig)[0])
"""Every member of the union of positions."""

STEMS = (PatchStemConfig(patch_size=4), ConvStemConfig(widths=(4, 8), strides=(2, 2)))
"""One stem of every member of the union, each with stride 4."""

assert {type(stem) for stem in STEMS} == set(get_args(get_args(StemConfig)[0]))

POOLS = get_args(ViTConfig.model_fields["pool"].annotation)
"""Every way to pool."""


def tiny_config(**changes: Any) -> ViTConfig:
    """Two blocks of width 16 on a grid of 2 x 3 patches."""
    table: dict[str, Any] = {
        "image_size": (8, 12),
        "stem": STEMS[0],
        "width": 16,
        "depth": 2,
        "heads": 2,
        "mlp_ratio": 2.0,
    }
    return ViTConfig(**(table | changes))


def tiny_model(
    classes: Sequence[str] = ("ant", "bee", "cat"),
    backbone: ViTConfig | None = None,
    seed: int = 0,
    **task: Any,
) -> Model:
    """A model with random weights that are large enough to tell classes apart."""
    backbone = backbone or tiny_config()
    preprocess = Preprocess(resize=CenterCrop(size=backbone.image_size, crop_pct=1.0))
    config = ModelConfig(
        backbone=backbone,
        task=ClassifyConfig(classes=tuple(classes), **task),
        preprocess=preprocess,
    )
    return randomise(Model(config), seed).eval()


def randomise(module: nn.Module, seed: int = 0, std: float = 0.4) -> nn.Module:
    """Give every parameter a value that matters: fresh models are full of zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * std
            parameter.copy_(noise)
    return module


class BoxSet(Dataset):
    """Images with boxes; each box is a bright rectangle on grey.

    Args:
        classes: Class names.
        targets: The boxes of each image, and its size; 16 x 24 pixels where it has none.
    """

    def __init__(self, classes: Sequence[str], targets: Sequence[Boxes]) -> None:
        self.classes, self.multilabel, self.boxes = tuple(classes), False, True
        self.ids = [f"{i}.png" for i in range(len(targets))]
        self.targets = [Boxes(target.items, target.size or (16, 24)) for target in targets]

    def read(self, index: int) -> Sample:
        """Paint one."""
        target = self.targets[index]
        assert isinstance(target, Boxes)
        assert target.size is not None
        image = torch.full((3, *target.size), 90, dtype=torch.uint8)
        for box in target.items:
            left, top, right, bottom = (round(side) for side in box.corners)
            image[box.label % 3, top:bottom, left:right] = 250
        return Sample(self.ids[index], image, target)

    def read_bytes(self, index: int) -> bytes:
        """Its pixels."""
        return bytes(self.read(index).image.numpy().data)


class ListDataset(Dataset):
    """Images in a list; None stands for a file that cannot be read."""

    def __init__(
        self,
        images: Sequence[torch.Tensor | None],
        targets: Sequence[Target] | None = None,
        classes: Sequence[str] = (),
        ids: Sequence[str] | None = None,
        *,
        multilabel: bool = False,
    ) -> None:
        self.images = images
        self.targets = targets if targets is not None else [None] * len(images)
        self.classes, self.multilabel = tuple(classes), multilabel
        self.ids = ids or [f"{i}.png" for i in range(len(images))]

    def read(self, index: int) -> Sample:
        image = self.images[index]
        if image is None:
            raise BadSampleError("truncated file")
        return Sample(self.ids[index], image, self.targets[index])

    def read_bytes(self, index: int) -> bytes:
        return str(index).encode()

    def stored_size(self, index: int) -> int:
        return 1


def photo(seed: int, height: int = 8, width: int = 12) -> torch.Tensor:
    """Random pixels."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
