"""A model whose true map is known: its logit is a weighted sum of the brightness of cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tiny import tiny_model
from vitrail.backbones.backbone import Backbone
from vitrail.model import Model
from vitrail.tasks.classify import Classify, ClassifyConfig
from vitrail.types import Features

CELL = 4


class CellMeans(Backbone):
    """The brightness of each cell of 4 x 4 pixels, and their weighted sum as the image vector."""

    channels, strides, pooled_width = (1,), (CELL,), 1

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, images: Tensor) -> Features:
        cells = F.avg_pool2d(images, CELL).mean(dim=1, keepdim=True)
        pooled = (cells * self.weights).sum(dim=(2, 3))
        return Features(maps=(cells,), tokens=cells.flatten(2).mT, pooled=pooled)

    def layers(self) -> list[list[nn.Module]]:
        return [[self]]


def linear_model(weights: Tensor, *, scale: float = 1.0) -> Model:
    """Two classes; the logit of the second is the weighted sum times the scale."""
    model = tiny_model(classes=("no", "yes"))
    model.backbone = CellMeans(weights)
    model.task = Classify(ClassifyConfig(classes=("no", "yes")), 1)
    with torch.no_grad():
        model.task.head.weight.copy_(torch.tensor([[0.0], [scale]]))
        model.task.head.bias.zero_()
    return model.eval()


def true_map(model: Model, images: Tensor) -> Tensor:
    """What each cell gives to the logit, less what its share of the mean colour would give."""
    assert isinstance(model.backbone, CellMeans)
    cells = model.backbone(model.normalise(images)).maps[0][:, 0]
    mean = images.float().mean(dim=(2, 3), keepdim=True).round().expand(images.shape)
    blank = model.backbone(model.normalise(mean.to(torch.uint8))).maps[0][:, 0]
    return (cells - blank) * model.backbone.weights


def flat(cells: Sequence[Sequence[int]]) -> Tensor:
    """A grey image (3, H, W) whose cells have these values."""
    grid = torch.tensor(cells, dtype=torch.uint8)
    return grid.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1).expand(3, -1, -1).clone()
