"""Published ViT variants under timm's names, and tiny presets for small images.

Figures: `top1` is the ImageNet-1k accuracy that the owners published, or timm's own evaluation of
the published weights where the owners gave none (timm results-imagenet.csv).
"""

from __future__ import annotations

from typing import NamedTuple

from vitrail.backbones.backbone import Variant, preset
from vitrail.backbones.vit import ConvStemConfig, Learned1dConfig, PatchStemConfig, ViTConfig


class _Shape(NamedTuple):
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0


_SHAPES = {
    "tiny": _Shape(192, 12, 3),
    "small": _Shape(384, 12, 6),
    "base": _Shape(768, 12, 12),
    "large": _Shape(1024, 24, 16),
    "huge": _Shape(1280, 32, 16),
    "giant": _Shape(1408, 40, 16, 48 / 11),
    "gigantic": _Shape(1664, 48, 16, 64 / 13),
}

_PAPER = "Dosovitskiy et al. 2021, Table 5"
_AUGREG = "Steiner et al. 2022, google-research README"
_TIMM = "timm results-imagenet.csv"
_NONE = "no published ImageNet-1k figure"

PUBLISHED: dict[str, tuple[float | None, str]] = {
    "vit_tiny_patch16_224": (0.75452, f"{_TIMM}, augreg_in21k_ft_in1k"),
    "vit_tiny_patch16_384": (0.7822, _AUGREG),
    "vit_small_patch32_224": (0.76010, f"{_TIMM}, augreg_in21k_ft_in1k"),
    "vit_small_patch32_384": (0.7958, _AUGREG),
    "vit_small_patch16_224": (0.81402, f"{_TIMM}, augreg_in21k_ft_in1k"),
    "vit_small_patch16_384": (0.8373, _AUGREG),
    "vit_base_patch32_224": (0.80732, f"{_TIMM}, augreg_in21k_ft_in1k"),
    "vit_base_patch32_384": (0.8128, f"{_PAPER}, ImageNet-21k"),
    "vit_base_patch16_224": (0.85108, f"{_TIMM}, augreg2_in21k_ft_in1k"),
    "vit_base_patch16_384": (0.8397, f"{_PAPER}, ImageNet-21k"),
    "vit_base_patch8_224": (0.86252, f"{_TIMM}, augreg2_in21k_ft_in1k"),
    "vit_large_patch32_224": (None, _NONE),
    "vit_large_patch32_384": (0.8099, f"{_PAPER}, ImageNet-21k"),
    "vit_large_patch16_224": (0.85856, f"{_TIMM}, augreg_in21k_ft_in1k"),
    "vit_large_patch16_384": (0.8515, f"{_PAPER}, ImageNet-21k"),
    "vit_huge_patch14_224": (None, _NONE),
    "vit_giant_patch14_224": (None, _NONE),
    "vit_gigantic_patch14_224": (None, _NONE),
}


HEADLESS = ("vit_large_patch32_224", "vit_huge_patch14_224")
"""Published without a head."""


def _published(name: str) -> Variant[ViTConfig]:
    """`vit_base_patch16_384` spells shape, patch and image size."""
    _, shape_name, patch, size = name.split("_")
    shape = _SHAPES[shape_name]
    config = ViTConfig(
        image_size=(int(size), int(size)),
        stem=PatchStemConfig(patch_size=int(patch.removeprefix("patch"))),
        width=shape.width,
        depth=shape.depth,
        heads=shape.heads,
        mlp_ratio=shape.mlp_ratio,
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


def _small(
    image: tuple[int, int], width: int, heads: int, stem: tuple[tuple[int, ...], tuple[int, ...]]
) -> ViTConfig:
    """Four blocks behind a convolutional stem, mean pooling; places start as sines and cosines."""
    return ViTConfig(
        image_size=image,
        stem=ConvStemConfig(widths=stem[0], strides=stem[1]),
        positions=Learned1dConfig(prefix=False, start="sincos_2d"),
        width=width,
        depth=4,
        heads=heads,
        mlp_ratio=2.0,
        class_token=False,
        pool="mean",
    )


SMALL = {
    "vit_nano_conv2_8": _small((8, 8), 96, 4, ((32, 64), (1, 2))),
    "vit_nano_conv4_28": _small((28, 28), 96, 4, ((32, 64, 64), (1, 2, 2))),
    "vit_nano_conv8_128": _small((128, 128), 128, 4, ((24, 48, 96), (2, 2, 2))),
    "vit_nano_conv16_192x256": _small((192, 256), 128, 4, ((24, 48, 96, 128), (2, 2, 2, 2))),
    "vit_nano_conv8_32x256": _small((32, 256), 96, 4, ((24, 48, 96), (2, 2, 2))),
    "vit_micro_conv16_96": _small(
        (96, 96), 192, 6, ((24, 48, 48, 96, 96, 192), (2, 2, 1, 2, 1, 2))
    ),
    "vit_nano_patch4_40": ViTConfig(
        image_size=(40, 40),
        stem=PatchStemConfig(patch_size=4),
        positions=Learned1dConfig(prefix=False, start="sincos_2d"),
        width=64,
        depth=4,
        heads=4,
        mlp_ratio=2.0,
    ),
}
"""Presets that learn from scratch on a CPU; `conv4` is the stride of the stem, the last figure the
image size (`32x256`: lines of text). In a small stem the first convolution is best left at full
resolution. `vit_nano_patch4_40` is a ViT as first published, patches and class token, for
`planted`."""

VIT: dict[str, Variant[ViTConfig]] = {
    **{name: _published(name) for name in PUBLISHED},
    **{name: preset(config) for name, config in SMALL.items()},
}
"""Every named ViT."""
