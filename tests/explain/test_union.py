"""A family is captured, or is known to have no attention: a new one has to choose."""

from __future__ import annotations

from typing import get_args

from presets import PRESETS, preset_model
from vitrail.backbones import BackboneConfig, build_backbone
from vitrail.backbones.recurrent import RecurrentConfig
from vitrail.backbones.resnet import ResNetConfig
from vitrail.explain.layers import attention_layers
from vitrail.nn.soft_split import PerformerTokenAttention

WITHOUT = {ResNetConfig, RecurrentConfig}
"""`test_capture` takes every preset that has attention; these have none."""


def test_every_other_family_is_captured() -> None:
    captured = {
        type(config) for config in PRESETS.values() if attention_layers(build_backbone(config))
    }
    assert captured == set(get_args(get_args(BackboneConfig)[0])) - WITHOUT


def test_performer_is_among_them() -> None:
    layers = attention_layers(preset_model(PRESETS["t2t_nano_8"]))
    assert isinstance(layers[0].module, PerformerTokenAttention)
