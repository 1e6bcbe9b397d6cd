"""The backbones of LW-DETR and RF-DETR under the names of their detectors, and a tiny preset."""

from __future__ import annotations

from vitrail.backbones.backbone import Variant, preset
from vitrail.backbones.windowed_vit import WindowedViTConfig

_LW_DETR = "Atten4Vis/LW-DETR, scripts; Chen et al. 2024, Table 1"
_RF_DETR = "roboflow/rf-detr, rfdetr/config.py"


def _published(config: WindowedViTConfig, source: str) -> Variant[WindowedViTConfig]:
    return Variant(config=config, source=source, classes=0, crop_pct=1.0, interpolation="bilinear")


def _rf_detr(side: int) -> WindowedViTConfig:
    """DINOv2 small on patches of 16 pixels, from nano to large on larger and larger images."""
    return WindowedViTConfig(image_size=(side, side), layer_scale=1.0)


def _lw_detr(
    width: int, depth: int, whole: tuple[int, ...], taps: tuple[int, ...]
) -> WindowedViTConfig:
    """A ViT that was pre-trained with CAE v2: no class token, no last norm."""
    return WindowedViTConfig(
        image_size=(640, 640),
        table=(14, 14),
        resampling="bicubic",
        width=width,
        depth=depth,
        heads=12,
        windows=4,
        whole=whole,
        taps=taps,
        norm_taps=False,
        class_token=False,
        layer_scale=0.1,
    )


_TEN = (2, 4, 5, 8), (3, 5, 6, 10)
"""Blocks that see the whole image, and taps, of a ViT of ten blocks."""

PUBLISHED = {
    "rf_detr_nano": _published(_rf_detr(384), _RF_DETR),
    "rf_detr_small": _published(_rf_detr(512), _RF_DETR),
    "rf_detr_medium": _published(_rf_detr(576), _RF_DETR),
    "rf_detr_large": _published(_rf_detr(704), _RF_DETR),
    # Its last tap leaves the twelfth block of DINOv2 without use.
    "rf_detr_base": _published(
        WindowedViTConfig(
            image_size=(560, 560),
            patch_size=14,
            table=(37, 37),
            depth=11,
            windows=4,
            whole=(2, 5, 8),
            taps=(2, 5, 8, 11),
            layer_scale=1.0,
        ),
        _RF_DETR,
    ),
    "lw_detr_tiny": _published(_lw_detr(192, 6, (1, 3, 5), (2, 4, 6)), _LW_DETR),
    "lw_detr_small": _published(_lw_detr(192, 10, *_TEN), _LW_DETR),
    "lw_detr_medium": _published(_lw_detr(384, 10, *_TEN), _LW_DETR),
    "lw_detr_large": _published(
        _lw_detr(384, 10, *_TEN), f"{_LW_DETR}; the detector differs from medium, not this"
    ),
    "lw_detr_xlarge": _published(_lw_detr(768, 10, *_TEN), _LW_DETR),
}

SMALL = {
    "windowed_vit_nano_8": WindowedViTConfig(
        image_size=(8, 8),
        patch_size=2,
        width=64,
        depth=4,
        heads=4,
        whole=(1, 3),
        taps=(2, 4),
        mlp_ratio=2.0,
    )
}
"""Learns from scratch on a CPU; the last figure is the image size."""

WINDOWED_VIT: dict[str, Variant[WindowedViTConfig]] = {
    **PUBLISHED,
    **{name: preset(config) for name, config in SMALL.items()},
}
"""Every named one."""
