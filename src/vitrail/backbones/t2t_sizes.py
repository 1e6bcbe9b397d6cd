"""Published T2T-ViT variants (Yuan et al. 2021) and a tiny preset for small images.

Names: `t2t_vit_14` mixes by Performer, `t2t_vit_t_14` by softmax attention; the figure is the
depth, `_384` the image size where it is not 224.
"""

from __future__ import annotations

from typing import NamedTuple

from vitrail.backbones.backbone import Variant, preset
from vitrail.backbones.t2t import (
    SoftSplitConfig,
    T2TConfig,
    TokenBlockConfig,
    TokenPerformerConfig,
    TokenTransformerConfig,
)


class _Shape(NamedTuple):
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 3.0


_7 = _Shape(256, 7, 4, 2.0)
_10 = _Shape(256, 10, 4, 2.0)
_12 = _Shape(256, 12, 4, 2.0)
_14 = _Shape(384, 14, 6)
_19 = _Shape(448, 19, 7)
_24 = _Shape(512, 24, 8)

_PERFORMER, _SOFTMAX = TokenPerformerConfig(), TokenTransformerConfig()

_OWNERS = "Yuan et al. 2021, README of the owners"
_NONE = "no published ImageNet-1k figure"


def _published(
    shape: _Shape,
    top1: float | None,
    *,
    token_block: TokenBlockConfig = _PERFORMER,
    image: int = 224,
) -> Variant[T2TConfig]:
    config = T2TConfig(
        image_size=(image, image),
        token_block=token_block,
        width=shape.width,
        depth=shape.depth,
        heads=shape.heads,
        mlp_ratio=shape.mlp_ratio,
    )
    return Variant(config=config, top1=top1, source=_NONE if top1 is None else _OWNERS)


PUBLISHED = {
    "t2t_vit_7": _published(_7, 0.717),
    "t2t_vit_10": _published(_10, 0.752),
    "t2t_vit_12": _published(_12, 0.765),
    "t2t_vit_14": _published(_14, 0.815),
    "t2t_vit_19": _published(_19, 0.819),
    "t2t_vit_24": _published(_24, 0.823),
    "t2t_vit_14_384": _published(_14, 0.833, image=384),
    "t2t_vit_t_14": _published(_14, 0.817, token_block=_SOFTMAX),
    "t2t_vit_t_19": _published(_19, 0.824, token_block=_SOFTMAX),
    "t2t_vit_t_24": _published(_24, 0.826, token_block=_SOFTMAX),
    "t2t_vit_14_resnext": _published(_Shape(384, 14, 32), None),
    "t2t_vit_14_wide": _published(_Shape(768, 4, 12), None),
}

SMALL = {
    "t2t_nano_8": T2TConfig(
        image_size=(8, 8),
        splits=(SoftSplitConfig(kernel=3, stride=1), SoftSplitConfig(kernel=3, stride=2)),
        token_block=TokenPerformerConfig(dropout=0.0),
        token_width=32,
        width=64,
        depth=4,
        heads=4,
        mlp_ratio=2.0,
    ),
    "t2t_nano_40": T2TConfig(
        image_size=(40, 40),
        splits=(SoftSplitConfig(kernel=3, stride=2), SoftSplitConfig(kernel=3, stride=2)),
        token_block=TokenPerformerConfig(features=16, dropout=0.0),
        token_width=24,
        width=64,
        depth=3,
        heads=4,
        mlp_ratio=2.0,
    ),
}
"""Presets that learn from scratch on a CPU; the last figure is the image size."""

T2T: dict[str, Variant[T2TConfig]] = {
    **PUBLISHED,
    **{name: preset(config) for name, config in SMALL.items()},
}
"""Every named T2T-ViT."""
