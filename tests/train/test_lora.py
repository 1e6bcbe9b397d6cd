"""Adapters learn a difference that can be merged away, in every family that has linear maps."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from presets import PRESETS, preset_model
from tiny import POOLS, photo, randomise, tiny_config, tiny_model
from vitrail.backbones import BackboneConfig
from vitrail.errors import ConfigError
from vitrail.model import Model
from vitrail.nn.blocks import Mlp
from vitrail.train.lora import ADAPTED, add_adapters, merged
from vitrail.train.recipe import LoraRecipe

RECIPE = LoraRecipe(rank=2, alpha=6.0)
WITHOUT = ("resnet", "recurrent")
"""Families that have no attention and no MLP."""


@pytest.mark.parametrize("name", PRESETS)
def test_every_family(name: str) -> None:
    config = PRESETS[name]
    model = preset_model(config)
    images = torch.stack([photo(i, 8, 8) for i in range(3)])
    with torch.no_grad():
        plain = model(images)
    if config.kind in WITHOUT:
        with pytest.raises(ConfigError, match=f"a {config.kind} has no attention and no MLP"):
            add_adapters(model, RECIPE)
        return
    before = {key: value.clone() for key, value in model.state_dict().items()}
    add_adapters(model, RECIPE)
    with torch.no_grad():
        torch.testing.assert_close(model(images), plain, atol=0, rtol=0)
    randomise_adapters(model)
    after = merged(model.state_dict(), RECIPE)
    assert after.keys() == before.keys(), "nothing downstream knows of adapters"
    twin = Model(model.config).eval()
    twin.load_state_dict(after)
    with torch.no_grad():
        found = model(images)
        torch.testing.assert_close(twin(images), found, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-3), "they do something"
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    linears = {f"backbone.{key}.weight" for key in adapted_names(twin)}
    assert changed == linears


def randomise_adapters(model: Model) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".0.a", ".0.b")):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def adapted_names(model: Model) -> set[str]:
    return {
        f"{path}.{name}"
        for path, module in model.backbone.named_modules()
        if isinstance(module, ADAPTED)
        for name, child in module.named_children()
        if isinstance(child, nn.Linear)
    }


def test_the_presets_are_every_family() -> None:
    kinds = {get_args(member.model_fields["kind"].annotation)[0] for member in members()}
    assert {config.kind for config in PRESETS.values()} == kinds


def members() -> tuple[type, ...]:
    return get_args(get_args(BackboneConfig)[0])


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool(pool: str) -> None:
    model = tiny_model(backbone=tiny_config(pool=pool))
    names = adapted_names(model)
    assert any(name.startswith("pool.") for name in names) == (pool == "attention")
    add_adapters(model, RECIPE)
    assert {n for n, p in model.backbone.named_parameters() if p.requires_grad} == {
        f"{name}.parametrizations.weight.0.{part}" for name in names for part in "ab"
    }


def test_only_adapters_and_the_task_learn() -> None:
    model = tiny_model()
    add_adapters(model, RECIPE)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in learning if name.startswith("task.")} == {
        "task.head.weight",
        "task.head.bias",
    }
    sizes = [p.numel() for n, p in model.named_parameters() if n.endswith((".a", ".b"))]
    assert sum(sizes) == 2 * 2 * ((16 + 48) + (16 + 16) + (16 + 32) + (32 + 16))


def test_gradients_are_those_of_the_low_rank_difference() -> None:
    """d/dB = scale · G Aᵀ and d/dA = scale · Bᵀ G, where G is the gradient of the weight itself."""
    torch.manual_seed(0)
    model = tiny_model()
    plain = tiny_model()
    add_adapters(model, RECIPE)
    linear = model.backbone.blocks[0].mlp.fc1
    adapter = linear.parametrizations.weight[0]
    images = torch.stack([photo(i) for i in range(2)])
    model(images).square().sum().backward()
    plain(images).square().sum().backward()
    gradient = plain.backbone.blocks[0].mlp.fc1.weight.grad
    torch.testing.assert_close(adapter.b.grad, 3.0 * gradient @ adapter.a.T, atol=1e-4, rtol=1e-3)
    assert torch.equal(adapter.a.grad, torch.zeros_like(adapter.a)), "B is zero at first"


def test_a_plain_state_stays_as_it_is() -> None:
    state = randomise(Mlp(4, 8)).state_dict()
    same = merged(state, RECIPE)
    assert same.keys() == state.keys()
    assert all(same[name] is state[name] for name in state)
