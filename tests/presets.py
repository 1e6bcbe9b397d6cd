"""One small model of every family, for parts that must know them all."""

from __future__ import annotations

import torch

from tiny import randomise
from vitrail.backbones import VARIANTS, BackboneConfig
from vitrail.data.preprocess import HALF, CenterCrop, Preprocess
from vitrail.model import Model, ModelConfig
from vitrail.tasks.classify import ClassifyConfig

PRESETS: dict[str, BackboneConfig] = {
    name: variant.config
    for name, variant in VARIANTS.items()
    if not variant.published and max(variant.config.image_size) <= 8
}
"""Presets for images of 8 x 8; `test_every_family` sees to it that each family has one."""


def preset_model(backbone: BackboneConfig, *, channel_order: str = "rgb") -> Model:
    """A classifier of two labels with weights that matter, in evaluation mode."""
    torch.manual_seed(0)
    preprocess = Preprocess(
        resize=CenterCrop(size=backbone.image_size, crop_pct=1),
        mean=HALF,
        std=HALF,
        channel_order=channel_order,
    )
    task = ClassifyConfig(classes=("a", "b", "c"))
    config = ModelConfig(backbone=backbone, task=task, preprocess=preprocess)
    return randomise(Model(config), std=0.2).eval()
