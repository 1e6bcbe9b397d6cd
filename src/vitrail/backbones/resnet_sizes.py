"""ResNets with torchvision's figures, and a tiny preset for small images."""

from __future__ import annotations

from vitrail.backbones.backbone import Variant, preset
from vitrail.backbones.resnet import ResNetConfig, SmallRootConfig

_SOURCE = "torchvision IMAGENET1K_V1"


def _published(config: ResNetConfig, top1: float) -> Variant[ResNetConfig]:
    return Variant(
        config=config, top1=top1, source=_SOURCE, crop_pct=0.875, interpolation="bilinear"
    )


PUBLISHED = {
    "resnet18": _published(ResNetConfig(block="basic", depths=(2, 2, 2, 2)), 0.69758),
    "resnet50": _published(ResNetConfig(block="bottleneck", depths=(3, 4, 6, 3)), 0.76130),
}

SMALL = {
    "resnet_nano_8": ResNetConfig(
        image_size=(8, 8), root=SmallRootConfig(), block="basic", depths=(1, 1, 1), width=32
    )
}
"""Learns from scratch on a CPU; the last figure is the image size."""

RESNET: dict[str, Variant[ResNetConfig]] = {
    **PUBLISHED,
    **{name: preset(config) for name, config in SMALL.items()},
}
"""Every named ResNet."""
