"""YOLOS (Fang et al. 2021, "You only look at one sequence") with the sizes of Hugging Face's files.

A YOLOS is a ViT with learned tokens that find one object each. Most add positions again after
every block, from tables of their own. Its images are larger and no squares.
"""

from __future__ import annotations

from typing import Literal

from vitrail.backbones.backbone import Variant, preset
from vitrail.backbones.vit import Learned1dConfig, PatchStemConfig, ViTConfig


def _yolos(
    image: tuple[int, int], width: int, heads: int, depth: int, *, again: bool
) -> Variant[ViTConfig]:
    """Patches of 16 pixels and 100 tokens that find objects, as published."""
    positions_in: Literal["stem", "layers"] = "layers" if again else "stem"
    config = ViTConfig(
        image_size=image,
        stem=PatchStemConfig(patch_size=16),
        positions=Learned1dConfig(resampling="bicubic"),
        positions_in=positions_in,
        width=width,
        depth=depth,
        heads=heads,
        eps=1e-12,
        detection_tokens=100,
    )
    return Variant(
        config=config,
        source="hustvl/yolos-*; no classifiers",
        classes=0,
        crop_pct=1.0,
        interpolation="bilinear",
    )


PUBLISHED = {
    "yolos_tiny": _yolos((800, 1328), 192, 3, 12, again=False),
    "yolos_small": _yolos((512, 864), 384, 6, 12, again=True),
    "yolos_small_dwr": _yolos((512, 864), 330, 6, 14, again=True),
    "yolos_base": _yolos((800, 1344), 768, 12, 12, again=True),
}

SMALL = {
    "yolos_nano_patch2_8": ViTConfig(
        image_size=(8, 8),
        stem=PatchStemConfig(patch_size=2),
        positions=Learned1dConfig(resampling="bicubic", start="sincos_2d"),
        positions_in="layers",
        width=32,
        depth=3,
        heads=4,
        mlp_ratio=2.0,
        detection_tokens=4,
    )
}
"""Learns from scratch on a CPU; the last figure is the image size."""

YOLOS: dict[str, Variant[ViTConfig]] = {
    **PUBLISHED,
    **{name: preset(config) for name, config in SMALL.items()},
}
"""Every named YOLOS."""
