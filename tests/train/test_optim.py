"""Parameter groups, the learning rate and freezing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tiny import POSITIONS, STEMS, tiny_config, tiny_model
from vitrail.backbones.vit import ViTConfig
from vitrail.model import Model
from vitrail.train.optim import build_optimizer, freeze, learning_rate
from vitrail.train.recipe import OptimRecipe, ScheduleRecipe


def group_of(model: Model, recipe: OptimRecipe) -> dict[str, dict[str, Any]]:
    """The optimizer's group of every parameter by name."""
    optimizer = build_optimizer(model, recipe)
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


BACKBONES = [tiny_config(positions=kind()) for kind in POSITIONS] + [
    tiny_config(stem=STEMS[1]),
    tiny_config(class_token=False, pool="attention"),
    tiny_config(layer_scale=1e-5, qk_norm=True, registers=2),
]


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: f"{b.positions.kind}-{b.pool}")
def test_every_parameter_is_in_one_group_and_only_matrices_decay(backbone: ViTConfig) -> None:
    model = tiny_model(backbone=backbone)
    groups = group_of(model, OptimRecipe(weight_decay=0.3))
    count = sum(len(g["params"]) for g in build_optimizer(model, OptimRecipe()).param_groups)
    assert count == len(groups) == len(list(model.parameters()))
    matrices = {
        f"{place}.weight"
        for place, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    for name, group in groups.items():
        assert group["weight_decay"] == (0.3 if name in matrices else 0.0), name


def test_layer_decay_scales_by_depth() -> None:
    model = tiny_model()  # two blocks
    groups = group_of(model, OptimRecipe(lr=1.0, layer_decay=0.5))
    assert groups["task.head.weight"]["lr_scale"] == 1
    assert groups["backbone.norm.weight"]["lr_scale"] == 1
    scales = {
        "backbone.blocks.1.": 0.5,
        "backbone.blocks.0.": 0.25,
        "backbone.patch_embed.": 0.125,
        "backbone.pos_embed": 0.125,
        "backbone.prefix_token": 0.125,
    }
    for prefix, scale in scales.items():
        found = [g for name, g in groups.items() if name.startswith(prefix)]
        assert found, prefix
        assert {g["lr_scale"] for g in found} == {scale}, prefix
        assert {g["lr"] for g in found} == {scale}


def test_without_layer_decay_all_learn_alike() -> None:
    groups = group_of(tiny_model(), OptimRecipe())
    assert {group["lr_scale"] for group in groups.values()} == {1.0}


@settings(deadline=None)
@given(
    steps=st.integers(1, 500),
    warmup=st.floats(0, 1),
    floor=st.floats(0, 1),
    data=st.data(),
)
def test_learning_rate_is_the_closed_form(
    steps: int, warmup: float, floor: float, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, steps - 1))
    rate = learning_rate(step, steps, ScheduleRecipe(warmup=warmup, min_lr=floor))
    rising = round(warmup * steps)
    if step < rising:
        assert rate == pytest.approx((step + 1) / (rising + 1))
    else:
        angle = math.pi * (step - rising) / (steps - rising)
        assert rate == pytest.approx(floor + (1 - floor) * (1 + math.cos(angle)) / 2)
    assert 0 < rate <= 1 or floor == 0


def test_the_rate_rises_to_the_peak_then_falls() -> None:
    recipe = ScheduleRecipe(warmup=0.1, min_lr=0.01)
    rates = [learning_rate(step, 200, recipe) for step in range(200)]
    assert rates.index(max(rates)) == 20
    assert rates[20] == 1.0
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)


def test_frozen_weights_and_statistics_do_not_move() -> None:
    model = tiny_model(backbone=tiny_config(stem=STEMS[1]))
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()), "the stem has statistics"
    frozen = freeze(model, 2)
    optimizer = build_optimizer(model, OptimRecipe(lr=0.1, weight_decay=0.5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for seed in range(3):
        model.train()
        for module in frozen:
            module.eval()
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(0, 256, (4, 3, 8, 12), generator=generator).to(torch.uint8)
        model(images).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    resting = ("backbone.patch_embed.", "backbone.pos_embed", "backbone.blocks.0.")
    for name, tensor in model.state_dict().items():
        if name.startswith(resting):
            assert torch.equal(tensor, before[name]), name
    for name in ("backbone.blocks.1.attn.qkv.weight", "task.head.weight"):
        assert not torch.equal(model.state_dict()[name], before[name]), name


def test_freezing_nothing_and_everything() -> None:
    model = tiny_model()
    assert freeze(model, 0) == []
    assert all(p.requires_grad for p in model.parameters())
    freeze(model, 99)
    left = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "task.head.weight" in left
    assert not any(name.startswith("backbone.blocks.") for name in left)
