"""Tiny recurrent presets for small images; no recurrent network over patches was published."""

from __future__ import annotations

from typing import Literal

from vitrail.backbones.backbone import Variant, preset
from vitrail.backbones.recurrent import RecurrentConfig
from vitrail.backbones.vit import PatchStemConfig


def _small(cell: Literal["rnn", "gru", "lstm"], *, bidirectional: bool = False) -> RecurrentConfig:
    """Two layers over 16 patches of 2 x 2 pixels."""
    return RecurrentConfig(
        image_size=(8, 8),
        stem=PatchStemConfig(patch_size=2),
        cell=cell,
        width=64 if bidirectional else 128,
        layers=2,
        bidirectional=bidirectional,
    )


SMALL = {
    "rnn_nano_8": _small("rnn"),
    "gru_nano_8": _small("gru"),
    "lstm_nano_8": _small("lstm"),
    "bilstm_nano_8": _small("lstm", bidirectional=True),
}
"""Learn from scratch on a CPU; the last figure is the image size."""

RECURRENT: dict[str, Variant[RecurrentConfig]] = {
    name: preset(config) for name, config in SMALL.items()
}
"""Every named recurrent network."""
