"""Backbones: one family a file. To add one: a file here and a line in each place below."""

from __future__ import annotations

from vitrail.backbones.backbone import Backbone
from vitrail.backbones.vit import ViT, ViTConfig

BackboneConfig = ViTConfig
"""The union of all families; tests iterate over it."""


def build_backbone(config: BackboneConfig) -> Backbone:
    """The module that a configuration describes, with fresh weights."""
    match config:
        case ViTConfig():
            return ViT(config)
