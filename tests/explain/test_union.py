"""A family is captured, or is known to have no attention: a new one has to choose. Heads too."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from presets import PRESETS, preset_model
from segmenter import READOUTS, SIZE, tiny_segmenter
from tiny import photo, randomise
from vitrail.backbones import BackboneConfig, build_backbone
from vitrail.backbones.recurrent import RecurrentConfig
from vitrail.backbones.resnet import ResNetConfig
from vitrail.explain.capture import capture
from vitrail.explain.layers import AttentionModule, attention_layers
from vitrail.explain.regions import find_regions, reading_layers
from vitrail.model import Model
from vitrail.nn.soft_split import PerformerTokenAttention
from vitrail.tasks.joint_segmenters import EomtReadout, SegmenterReadout
from vitrail.tasks.segmenters import LinearReadout, SegmentReadout

WITHOUT = {ResNetConfig, RecurrentConfig}
"""`test_capture` takes every preset that has attention; these have none."""

HEADS: dict[str, SegmentReadout] = READOUTS | {
    "segmenter": SegmenterReadout(width=16, depth=2, heads=2, hidden=16),
    "eomt": EomtReadout(queries=5, depth=2, heads=2, upscale=1),
    "eomt, masked": EomtReadout(queries=5, depth=2, heads=2, upscale=1, mask_probs=(1.0, 1.0)),
}
"""Every head of segmentation."""


def segmenter(head: str) -> Model:
    """A segmenter with random weights."""
    base = tiny_segmenter("linear")
    task = base.config.task.model_copy(update={"readout": HEADS[head]})
    config = base.config.model_copy(update={"task": task})
    return randomise(Model(config), std=0.2).eval()


def test_every_other_family_is_captured() -> None:
    captured = {
        type(config) for config in PRESETS.values() if attention_layers(build_backbone(config))
    }
    assert captured == set(get_args(get_args(BackboneConfig)[0])) - WITHOUT


def test_performer_is_among_them() -> None:
    layers = attention_layers(preset_model(PRESETS["t2t_nano_8"]))
    assert isinstance(layers[0].module, PerformerTokenAttention)


def test_every_head_of_segmentation_is_among_them() -> None:
    assert {type(head) for head in HEADS.values()} == set(get_args(get_args(SegmentReadout)[0]))


@pytest.mark.parametrize("head", HEADS)
def test_every_attention_of_a_segmenter_is_what_the_fused_path_used(head: str) -> None:
    model, image = segmenter(head), photo(0, SIZE[0] - 3, SIZE[1] - 7)
    layers = attention_layers(model)
    modules = {id(m) for m in model.modules() if isinstance(m, get_args(AttentionModule))}
    assert {id(layer.module) for layer in layers} == modules
    assert len({layer.key for layer in layers}) == len({layer.name for layer in layers})
    with torch.no_grad(), capture(model) as record:
        watched = model(image[None])
        plain = model(image[None])
    assert torch.equal(watched[0], plain[0])
    ran = [seen.layer.index for seen in record.layers]
    assert ran == list(range(len(layers))) * 2
    assert record.max_error < 1e-5
    own = len(layers) - len(attention_layers(model.backbone))
    assert (own > 0) == (not isinstance(HEADS[head], LinearReadout))


@pytest.mark.parametrize("head", HEADS)
def test_the_map_of_a_region_is_the_row_of_its_query(head: str) -> None:
    model, image = segmenter(head), photo(1, *SIZE)
    found = find_regions(model, image)
    layers = reading_layers(model)
    if not layers:
        assert found.attention is None
        return
    assert found.attention is not None
    with torch.no_grad(), capture(model, [layers[-1].index]) as record:
        model(image[None])
    assert record.layers[0].error < 1e-5
    for target, shown in zip(found.targets, found.attention.maps, strict=True):
        rows = target.shares.nonzero()[:, 0].tolist()
        expected = sum(target.shares[row] * record.layers[0].map(row)[0] for row in rows)
        torch.testing.assert_close(shown, expected)
