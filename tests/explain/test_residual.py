"""Shares of the residual path are the lengths of both sides of the sum in each kind of block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from presets import PRESETS, preset_model
from tiny import photo, tiny_config, tiny_model
from vitrail.backbones.swin import SwinBlock, SwinV2Block
from vitrail.explain.layers import attention_layers
from vitrail.explain.layout import Pooled
from vitrail.explain.residual import residual_shares
from vitrail.model import Model
from vitrail.nn.blocks import Block, PostNormBlock, PreNormBlock
from vitrail.nn.soft_split import TokenBlock

IMAGES = torch.stack([photo(1, 9, 20), photo(2, 9, 20)])


def shares_of(model: Model, images: Tensor = IMAGES) -> list[Tensor]:
    found: list[Tensor] = []
    with torch.no_grad(), residual_shares(model.backbone, found):
        model(images)
    return found


def by_hand(model: Model, kind: type[nn.Module]) -> list[Tensor]:
    """Each block of a kind again, its branch and what it is added to written out."""
    given: list[tuple[nn.Module, tuple[Tensor, ...]]] = []
    handles = [
        block.register_forward_pre_hook(lambda block, args: given.append((block, args)))
        for block in model.modules()
        if isinstance(block, kind)
    ]
    with torch.no_grad():
        model(IMAGES)
        for handle in handles:
            handle.remove()
        return [share(*both(block, *args)) for block, args in given]


def both(block: nn.Module, tokens: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    """What stays, and what attention adds to it."""
    match block:
        case PreNormBlock():
            return tokens, block.ls1(block.attn(block.norm1(tokens), *rest))
        case PostNormBlock():
            return tokens, block.ls1(block.attn(tokens, *rest))
        case SwinV2Block():
            return tokens, block.norm1(block.attn(tokens, *rest))
        case SwinBlock():
            return tokens, block.attn(block.norm1(tokens), *rest)
        case TokenBlock():
            mixed, values = block.attn(block.norm1(tokens))
            return values, mixed
        case _:
            raise AssertionError


def share(stayed: Tensor, added: Tensor) -> Tensor:
    before, new = (torch.linalg.vector_norm(side, dim=2) for side in (stayed, added))
    return before / (before + new)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (tiny_model(backbone=tiny_config(layer_scale=0.1, registers=2)), PreNormBlock),
        (tiny_model(backbone=tiny_config(norm="post", pool="mean")), PostNormBlock),
        (preset_model(PRESETS["hybrid_nano_8"]), Block),
        (preset_model(PRESETS["swin_nano_8"]), SwinBlock),
        (preset_model(PRESETS["swinv2_nano_8"]), SwinV2Block),
    ],
    ids=["pre", "post", "hybrid", "swin", "swinv2"],
)
def test_shares_by_hand(model: Model, kind: type[nn.Module]) -> None:
    found, expected = shares_of(model), by_hand(model, kind)
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_token_block_keeps_its_values() -> None:
    model = preset_model(PRESETS["t2t_nano_8"])
    found = shares_of(model)
    expected = by_hand(model, TokenBlock) + by_hand(model, Block)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_there_is_one_for_each_attention_that_is_added(name: str) -> None:
    model = preset_model(PRESETS[name])
    size = (IMAGES.shape[2], IMAGES.shape[3])
    layouts = [layer.place.at(size) for layer in attention_layers(model)]
    found = shares_of(model)
    assert len(found) == sum(not isinstance(layout, Pooled) for layout in layouts)
    assert all(bool(((one > 0) & (one < 1)).all()) for one in found)


def test_an_attention_that_adds_nothing_leaves_everything() -> None:
    """A token of zeros to which nothing is added is no 0 / 0."""
    model = tiny_model()
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.zero_()
    assert all(bool((one == 1).all()) for one in shares_of(model))


def test_half_precision_has_shares_in_float32() -> None:
    found = shares_of(tiny_model().bfloat16())
    assert all(one.dtype == torch.float32 for one in found)


def test_no_hook_stays_even_after_an_error() -> None:
    model, found = preset_model(PRESETS["t2t_nano_8"]), list[Tensor]()
    with pytest.raises(RuntimeError, match="boom"), residual_shares(model.backbone, found):
        raise RuntimeError("boom")
    model(IMAGES)
    assert found == []
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
