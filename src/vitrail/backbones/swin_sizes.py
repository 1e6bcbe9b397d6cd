"""Published Swin variants under timm's names, and tiny presets for small images.

Figures: `top1` is the owners' ImageNet-1k accuracy (Liu et al. 2021 and 2022, README), of weights
trained on ImageNet-22k first where `_22K` says so.
"""

from __future__ import annotations

from vitrail.backbones.backbone import Variant, preset
from vitrail.backbones.swin import SwinConfig, SwinV2Config

_SHAPES = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
"""Width of the first stage, blocks and heads of each stage."""

_V1 = "Liu et al. 2021, README of the owners"
_V2 = "Liu et al. 2022, README of the owners"
_22K = ", ImageNet-22k"

PUBLISHED: dict[str, tuple[float | None, str]] = {
    "swin_tiny_patch4_window7_224": (0.812, _V1),
    "swin_small_patch4_window7_224": (0.832, _V1),
    "swin_base_patch4_window7_224": (0.835, _V1),
    "swin_base_patch4_window12_384": (0.845, _V1),
    "swin_large_patch4_window7_224": (0.863, _V1 + _22K),
    "swin_large_patch4_window12_384": (0.873, _V1 + _22K),
    "swinv2_tiny_window8_256": (0.818, _V2),
    "swinv2_tiny_window16_256": (0.828, _V2),
    "swinv2_small_window8_256": (0.837, _V2),
    "swinv2_small_window16_256": (0.841, _V2),
    "swinv2_base_window8_256": (0.842, _V2),
    "swinv2_base_window16_256": (0.846, _V2),
    "swinv2_base_window12_192": (None, "published with 21841 classes of ImageNet-22k"),
    "swinv2_base_window12to16_192to256": (0.862, _V2 + _22K),
    "swinv2_base_window12to24_192to384": (0.871, _V2 + _22K),
    "swinv2_large_window12_192": (None, "published with 21841 classes of ImageNet-22k"),
    "swinv2_large_window12to16_192to256": (0.869, _V2 + _22K),
    "swinv2_large_window12to24_192to384": (0.876, _V2 + _22K),
}

_FINE_TUNED = (12, 12, 12, 6)
"""Windows of the stages at 192 pixels, before `window12to16` and `window12to24`."""


def _published(name: str) -> Variant[SwinConfig | SwinV2Config]:
    """`swin_base_patch4_window12_384` spells shape, window and image size."""
    generation, shape, *_, window, size = name.split("_")
    width, depths, heads = _SHAPES[shape]
    before, _, last = window.removeprefix("window").rpartition("to")
    side = int(size.rpartition("to")[2])
    config: SwinConfig | SwinV2Config
    if generation == "swin":
        config = SwinConfig(
            image_size=(side, side), width=width, depths=depths, heads=heads, window=int(last)
        )
    else:
        config = SwinV2Config(
            image_size=(side, side),
            width=width,
            depths=depths,
            heads=heads,
            window=int(last),
            pretrained_windows=_FINE_TUNED if before else (),
        )
    top1, source = PUBLISHED[name]
    return Variant(
        config=config,
        top1=top1,
        source=source,
        classes=1000 if top1 else 21841,
        crop_pct=1.0 if side >= 384 else 0.9,
    )


SMALL: dict[str, SwinConfig | SwinV2Config] = {
    "swin_nano_8": SwinConfig(
        image_size=(8, 8),
        patch_size=1,
        width=48,
        depths=(2, 2),
        heads=(3, 6),
        window=4,
        mlp_ratio=4.0,
    ),
    "swin_nano_40": SwinConfig(
        image_size=(40, 40),
        patch_size=2,
        width=32,
        depths=(2, 2),
        heads=(2, 4),
        window=5,
        mlp_ratio=2.0,
    ),
    "swinv2_nano_8": SwinV2Config(
        image_size=(8, 8),
        patch_size=1,
        width=48,
        depths=(2, 2),
        heads=(3, 6),
        window=4,
        mlp_ratio=4.0,
    ),
}
"""Presets that learn from scratch on a CPU; the last figure is the image size. On maps of 8 x 8 and
4 x 4, or 20 x 20 and 10 x 10, the windows are small enough that both stages shift."""

SWIN: dict[str, Variant[SwinConfig | SwinV2Config]] = {
    **{name: _published(name) for name in PUBLISHED},
    **{name: preset(config) for name, config in SMALL.items()},
}
"""Every named Swin."""
