"""Published hybrids under timm's names, and a tiny preset for small images.

Figures: `top1` is the ImageNet-1k accuracy that the owners published, or timm's own evaluation of
the published weights where the owners gave none (timm results-imagenet.csv).
"""

from __future__ import annotations

from vitrail.backbones.backbone import Variant, preset
from vitrail.backbones.hybrid import HybridConfig
from vitrail.backbones.resnet import SmallRootConfig
from vitrail.backbones.vit import Learned1dConfig

_SHAPES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
"""Width, depth and heads."""

_RESNETS = {"r": (), "r26": (2, 2, 2, 2), "r50_s16": (3, 4, 9), "r50_s32": (3, 4, 6, 3)}
"""Blocks a stage. The R50 of stride 16 has the last two stages' blocks in its third stage."""

_AUGREG = "Steiner et al. 2022, google-research README"
_TIMM = "timm results-imagenet.csv, augreg_in21k_ft_in1k"

PUBLISHED: dict[str, tuple[float | None, str]] = {
    "vit_tiny_r_s16_p8_224": (0.71800, _TIMM),
    "vit_tiny_r_s16_p8_384": (0.7540, _AUGREG),
    "vit_small_r26_s32_224": (0.81856, _TIMM),
    "vit_small_r26_s32_384": (0.8385, _AUGREG),
    "vit_base_r50_s16_224": (None, "no published ImageNet-1k figure"),
    "vit_base_r50_s16_384": (0.8508, "google-research README, replication with dropout 0.1"),
    "vit_large_r50_s32_224": (0.84434, _TIMM),
    "vit_large_r50_s32_384": (0.8599, _AUGREG),
}

HEADLESS = ("vit_base_r50_s16_224",)
"""Published without a head."""


def _published(name: str) -> Variant[HybridConfig]:
    """`vit_base_r50_s16_384` spells shape, ResNet, its stride and the image size.

    `r_s16_p8` is a root of stride 4 (not 16) with patches of 8 x 8 cells.
    """
    _, shape, resnet, stride, *patch, size = name.split("_")
    width, depth, heads = _SHAPES[shape]
    config = HybridConfig(
        image_size=(int(size), int(size)),
        resnet_depths=_RESNETS.get(resnet, _RESNETS.get(f"{resnet}_{stride}", ())),
        patch_size=8 if patch else 1,
        width=width,
        depth=depth,
        heads=heads,
    )
    top1, source = PUBLISHED[name]
    return Variant(
        config=config,
        top1=top1,
        source=source,
        classes=0 if name in HEADLESS else 1000,
        crop_pct=1.0 if int(size) >= 384 else 0.9,
        colours="half",
    )


SMALL = {
    "hybrid_nano_8": HybridConfig(
        image_size=(8, 8),
        root=SmallRootConfig(),
        resnet_depths=(1,),
        resnet_width=32,
        groups=8,
        patch_size=2,
        positions=Learned1dConfig(prefix=False, start="sincos_2d"),
        width=96,
        depth=2,
        heads=4,
        mlp_ratio=2.0,
        pool="mean",
    )
}
"""Learns from scratch on a CPU; the last figure is the image size."""

HYBRID: dict[str, Variant[HybridConfig]] = {
    **{name: _published(name) for name in PUBLISHED},
    **{name: preset(config) for name, config in SMALL.items()},
}
"""Every named hybrid."""
