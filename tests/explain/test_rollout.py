from __future__ import annotations

from typing import Any

import pytest
import torch

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.explain.capture import AttentionRecord, LayerAttention, capture
from vitrail.explain.rollout import attention_flow, describe_flow, rollout, rolls_out


def test_flow_of_two_layers_by_hand() -> None:
    """Equation 1 of Abnar and Zuidema 2020, two tokens."""
    first = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    second = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    layers = [LayerAttention(a[None, None], 0.0) for a in (first, second)]
    # (A + I) / 2: [[.75, .25], [0, 1]] and [[1, 0], [.25, .75]]; the later layer stands left.
    expected = torch.tensor([[[0.75, 0.25], [0.1875, 0.8125]]])
    torch.testing.assert_close(attention_flow(AttentionRecord(layers)), expected)


def test_heads_are_averaged() -> None:
    heads = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])[None]
    flow = attention_flow(AttentionRecord([LayerAttention(heads, 0.0)]))
    torch.testing.assert_close(flow, torch.tensor([[[0.75, 0.25], [0.25, 0.75]]]))


def test_nothing_recorded_is_an_error() -> None:
    with pytest.raises(AssertionError, match="no attention was recorded"):
        attention_flow(AttentionRecord())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"registers": 2},
        {"norm_after_pool": True},
        {"pool": "mean"},
        {"pool": "mean", "class_token": False},
        {"pool": "attention", "class_token": False, "positions": {"kind": "rotary_2d"}},
    ],
)
@pytest.mark.parametrize("size", [(8, 12), (9, 20)])
def test_maps_over_the_grid_sum_to_one(changes: dict[str, Any], size: tuple[int, int]) -> None:
    model = tiny_model(backbone=tiny_config(**changes))
    images = torch.stack([photo(1, *size), photo(2, *size)])
    maps = rollout(model, images)
    assert maps.shape == (2, -(-size[0] // 4), -(-size[1] // 4))
    assert bool((maps >= 0).all())
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(2))


@pytest.mark.parametrize("norm_after_pool", [False, True])
def test_read_out_at_the_class_token_where_it_is_pooled(norm_after_pool: bool) -> None:
    model = tiny_model(backbone=tiny_config(registers=1, norm_after_pool=norm_after_pool))
    images = photo(1)[None]
    with torch.no_grad(), capture(model) as record:
        model(images)
    row = attention_flow(record)[:, 0, 2:]
    torch.testing.assert_close(rollout(model, images).flatten(1), row / row.sum())


def test_read_out_at_the_patches_where_they_are_pooled() -> None:
    model = tiny_model(backbone=tiny_config(pool="mean"))
    images = photo(1)[None]
    with torch.no_grad(), capture(model) as record:
        model(images)
    row = attention_flow(record)[:, 1:].mean(dim=1)[:, 1:]
    torch.testing.assert_close(rollout(model, images).flatten(1), row / row.sum())


def test_both_tokens_that_answer_are_read_out() -> None:
    """DeiT: the answer is the mean of two heads, one on the distillation token."""
    model = tiny_model(backbone=tiny_config(distillation_token=True))
    images = photo(1)[None]
    with torch.no_grad(), capture(model) as record:
        model(images)
    row = attention_flow(record)[:, :2].mean(dim=1)[:, 2:]
    torch.testing.assert_close(rollout(model, images).flatten(1), row / row.sum())


@pytest.mark.parametrize("name", PRESETS)
def test_every_family_rolls_out_or_refuses(name: str) -> None:
    model = preset_model(PRESETS[name])
    images = torch.stack([photo(1, 9, 20), photo(2, 9, 20)])
    if not rolls_out(model.backbone):
        with pytest.raises(TypeError, match="attention over all tokens"):
            rollout(model, images)
        return
    maps = rollout(model, images)
    with torch.no_grad():
        features = model.backbone(model.normalise(images))
    assert maps.shape == (2, *features.maps[-1].shape[2:])
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(2))


def test_a_t2t_is_read_out_at_its_class_token() -> None:
    model = preset_model(PRESETS["t2t_nano_8"])
    images = photo(1, 8, 8)[None]
    with torch.no_grad(), capture(model.backbone.blocks) as record:
        model(images)
    row = attention_flow(record)[:, 0, 1:]
    torch.testing.assert_close(rollout(model, images).flatten(1), row / row.sum())


def test_where_the_flow_does_not_begin_at_patches_is_said() -> None:
    said = {name for name, config in PRESETS.items() if describe_flow(config)}
    assert said == {name for name in PRESETS if name.startswith(("t2t", "hybrid"))}
