"""DeiT (Touvron et al. 2021) and DeiT-III (Touvron et al. 2022) under timm's names.

A DeiT is a ViT; what is new is how it is trained (`recipes/deit-*.toml`) and, where it is
distilled, a second token behind the class token with a head of its own, which learns from a
teacher. A DeiT-III has LayerScale and gives no position to the class token.

Figures: `top1` of DeiT is the owners' (paper and README), of DeiT-III timm's evaluation of the
published weights (results-imagenet.csv; in22k_ft where the owners trained on ImageNet-21k too).
"""

from __future__ import annotations

from vitrail.backbones.backbone import Variant, preset
from vitrail.backbones.vit import ConvStemConfig, Learned1dConfig, PatchStemConfig, ViTConfig

_SHAPES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "medium": (512, 12, 8),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
"""Width, depth and heads."""

_DEIT = "Touvron et al. 2021, README of the owners"
_DEIT3 = "timm results-imagenet.csv, fb_in1k"

PUBLISHED: dict[str, tuple[float, str]] = {
    "deit_tiny_patch16_224": (0.722, _DEIT),
    "deit_small_patch16_224": (0.799, _DEIT),
    "deit_base_patch16_224": (0.818, _DEIT),
    "deit_base_patch16_384": (0.829, _DEIT),
    "deit_tiny_distilled_patch16_224": (0.745, _DEIT),
    "deit_small_distilled_patch16_224": (0.812, _DEIT),
    "deit_base_distilled_patch16_224": (0.834, _DEIT),
    "deit_base_distilled_patch16_384": (0.852, f"{_DEIT}, 1000 epochs"),
    "deit3_small_patch16_224": (0.81382, _DEIT3),
    "deit3_small_patch16_384": (0.83432, _DEIT3),
    "deit3_medium_patch16_224": (0.83090, _DEIT3),
    "deit3_base_patch16_224": (0.83800, _DEIT3),
    "deit3_base_patch16_384": (0.85088, _DEIT3),
    "deit3_large_patch16_224": (0.84772, _DEIT3),
    "deit3_large_patch16_384": (0.85820, _DEIT3),
    "deit3_huge_patch14_224": (0.85204, _DEIT3),
}


def _published(name: str) -> Variant[ViTConfig]:
    """`deit_tiny_distilled_patch16_224` spells shape, token, patch and image size."""
    generation, shape, *distilled, patch, size = name.split("_")
    width, depth, heads = _SHAPES[shape]
    third = generation == "deit3"
    config = ViTConfig(
        image_size=(int(size), int(size)),
        stem=PatchStemConfig(patch_size=int(patch.removeprefix("patch"))),
        positions=Learned1dConfig(
            prefix=not third, resampling="bicubic_antialias" if third else "bicubic"
        ),
        width=width,
        depth=depth,
        heads=heads,
        distillation_token=bool(distilled),
        layer_scale=1e-6 if third else None,
    )
    top1, source = PUBLISHED[name]
    return Variant(
        config=config, top1=top1, source=source, crop_pct=1.0 if int(size) >= 384 else 0.9
    )


SMALL = {
    "deit_nano_distilled_conv2_8": ViTConfig(
        image_size=(8, 8),
        stem=ConvStemConfig(widths=(32, 64), strides=(1, 2)),
        positions=Learned1dConfig(prefix=False, start="sincos_2d"),
        width=96,
        depth=4,
        heads=4,
        mlp_ratio=2.0,
        distillation_token=True,
    ),
    "deit_nano_distilled_patch4_40": ViTConfig(
        image_size=(40, 40),
        stem=PatchStemConfig(patch_size=4),
        positions=Learned1dConfig(prefix=False, start="sincos_2d"),
        width=64,
        depth=4,
        heads=4,
        mlp_ratio=2.0,
        distillation_token=True,
    ),
}
"""Presets that learn from scratch on a CPU; the last figure is the image size."""

DEIT: dict[str, Variant[ViTConfig]] = {
    **{name: _published(name) for name in PUBLISHED},
    **{name: preset(config) for name, config in SMALL.items()},
}
"""Every named DeiT."""
