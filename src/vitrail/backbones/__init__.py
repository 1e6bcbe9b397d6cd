"""Backbones: one family a file. To add one: a file here and a line in each place below."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from vitrail.backbones.backbone import Backbone, Variant
from vitrail.backbones.deit_sizes import DEIT
from vitrail.backbones.hybrid import Hybrid, HybridConfig
from vitrail.backbones.hybrid_sizes import HYBRID
from vitrail.backbones.recurrent import Recurrent, RecurrentConfig
from vitrail.backbones.recurrent_sizes import RECURRENT
from vitrail.backbones.resnet import ResNet, ResNetConfig
from vitrail.backbones.resnet_sizes import RESNET
from vitrail.backbones.swin import Swin, SwinConfig, SwinV2Config
from vitrail.backbones.swin_sizes import SWIN
from vitrail.backbones.t2t import T2T, T2TConfig
from vitrail.backbones.t2t_sizes import T2T as T2T_SIZES
from vitrail.backbones.vit import ViT, ViTConfig
from vitrail.backbones.vit_sizes import VIT
from vitrail.backbones.windowed_vit import WindowedViT, WindowedViTConfig
from vitrail.backbones.windowed_vit_sizes import WINDOWED_VIT
from vitrail.backbones.yolos_sizes import YOLOS

BackboneConfig = Annotated[
    ViTConfig
    | WindowedViTConfig
    | T2TConfig
    | SwinConfig
    | SwinV2Config
    | HybridConfig
    | ResNetConfig
    | RecurrentConfig,
    Field(discriminator="kind"),
]
"""The union of all families; tests iterate over it."""

FAMILIES: dict[str, dict[str, Variant[Any]]] = {
    "vit": VIT,
    "deit": DEIT,
    "yolos": YOLOS,
    "windowed_vit": WINDOWED_VIT,
    "t2t": T2T_SIZES,
    "swin": SWIN,
    "hybrid": HYBRID,
    "resnet": RESNET,
    "recurrent": RECURRENT,
}
"""Named variants, family by family."""

VARIANTS = {name: variant for family in FAMILIES.values() for name, variant in family.items()}
"""Every named variant."""


def build_backbone(config: BackboneConfig) -> Backbone:  # noqa: PLR0911 one return a family
    """The module that a configuration describes, with fresh weights."""
    match config:
        case ViTConfig():
            return ViT(config)
        case WindowedViTConfig():
            return WindowedViT(config)
        case T2TConfig():
            return T2T(config)
        case SwinConfig() | SwinV2Config():
            return Swin(config)
        case HybridConfig():
            return Hybrid(config)
        case ResNetConfig():
            return ResNet(config)
        case RecurrentConfig():
            return Recurrent(config)
